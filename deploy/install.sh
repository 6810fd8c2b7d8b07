#!/bin/sh
# Installs the hub from this folder: no network, no compiler, nothing written outside PREFIX. What is installed there
# already goes on working until the new one has shown that it works, and stays for one more turn as the way back.
#
# usage: ./install.sh [PREFIX]      PREFIX is /opt/unionhub unless given; PYTHON=/path/to/python picks the interpreter
# exit codes: 0 installed, or it was already; 1 it failed and nothing changed; 2 something is missing, nothing changed
set -eu
umask 022

stop() {
  code=$1
  shift
  printf '%s\n' "$@" >&2
  exit "$code"
}

case ${1:-} in
  -*) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
here=$(cd "$(dirname "$0")" && pwd)
prefix=${1:-/opt/unionhub}
case $prefix in /*) ;; *) prefix=$PWD/$prefix ;; esac

# -- the bundle and this machine ---------------------------------------------------------------------

(cd "$here" && sha256sum --check --quiet --strict SHA256SUMS >&2) || stop 2 \
  "Gói bị hỏng khi chép: các tệp nêu trên không khớp. Chép lại gói; chưa có gì được cài." \
  "The bundle is damaged: the files above do not match. Copy it again; nothing was installed."
. "$here/BUNDLE"

# A name on PATH proves nothing: only what runs, and is what the wheels were made for, counts.
tag='import sys, sysconfig
print(sys.implementation.cache_tag.replace("cpython-", "cp") + "-" + sysconfig.get_platform())'
python= other= without_venv=
if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; else set -- "python$PYTHON_VERSION" python3; fi
for name; do
  path=$(command -v "$name" 2>/dev/null) || continue
  is=$("$path" -I -c "$tag" 2>/dev/null) || continue
  if [ "$is" != "$PLATFORM" ]; then
    other=$is
  elif "$path" -I -c 'import ensurepip, venv' 2>/dev/null; then
    python=$path
    break
  else
    without_venv=$path
  fi
done

if [ -z "$python" ]; then
  sudo=
  [ "$(id -u)" = 0 ] || sudo='sudo '
  if command -v apt-get >/dev/null 2>&1; then
    cure="${sudo}apt-get install -y python$PYTHON_VERSION python$PYTHON_VERSION-venv"
  elif command -v dnf >/dev/null 2>&1; then
    cure="${sudo}dnf install -y python$PYTHON_VERSION"
  else
    cure="PYTHON=/path/to/python$PYTHON_VERSION $here/install.sh $prefix"
  fi
  if [ -n "$without_venv" ]; then
    stop 2 "$without_venv chưa có venv. Chạy lệnh này rồi làm lại; chưa có gì được cài:" \
      "$without_venv has no venv. Run this, then try again; nothing was installed:" "  $cure"
  fi
  stop 2 \
    "Gói này dành cho $PLATFORM${other:+, máy này có $other}. Cần Python $PYTHON_VERSION (hoặc gói làm bằng Python của máy này):" \
    "This bundle is for $PLATFORM${other:+, this machine has $other}. Python $PYTHON_VERSION is needed (or a bundle made with this machine's):" \
    "  $cure"
fi

if [ -e "$prefix" ] && [ ! -d "$prefix/releases" ] && [ -n "$(ls -A "$prefix" 2>&1)" ]; then
  stop 2 "$prefix đã có thứ khác, không ghi vào; chọn thư mục khác." \
    "$prefix holds something else and was left alone; choose another folder."
fi

# -- the new release, beside what is there -----------------------------------------------------------

release=$VERSION-$(sha256sum "$here/SHA256SUMS" | cut -c 1-12)
new=$prefix/releases/$release
mkdir -p "$prefix/releases" "$prefix/bin" || stop 1 \
  "Không ghi được vào $prefix; chưa có gì được cài. Chạy bằng sudo, hoặc chọn thư mục khác." \
  "Cannot write to $prefix; nothing was installed. Use sudo, or another folder."

# Nothing of the caller's environment or pip's own settings may point anywhere but here.
alone() {
  env -i PATH="$PATH" HOME="$new/tmp" TMPDIR="$new/tmp" LANG=C.UTF-8 PIP_CONFIG_FILE=/dev/null "$@"
}

if [ ! -e "$new/complete" ]; then
  rm -rf "$new"
  trap 'rm -rf "$new"' EXIT
  trap 'exit 1' HUP INT TERM
  echo "Đang cài Union Hub $VERSION vào $prefix / installing, about half a minute"
  { mkdir "$new" "$new/tmp" \
    && alone "$python" -I -m venv "$new" \
    && alone "$new/bin/python" -I -m pip --isolated --no-cache-dir --disable-pip-version-check --no-input \
      install -qq --no-index --find-links "$here/wheels" --require-hashes --only-binary :all: \
      --requirement "$here/requirements.txt" \
    && alone "$new/bin/unionhub" init "$new/tmp/config" >/dev/null \
    && alone "$new/bin/unionhub" check --config "$new/tmp/config" >/dev/null \
    && rm -rf "$new/tmp" \
    && : > "$new/complete"
  } || stop 1 "Cài không xong, lý do ở trên. Bản đang có (nếu có) giữ nguyên, không có gì thay đổi." \
    "It did not install, see above. What was there, if anything, is as it was."
  trap - EXIT
fi

# -- from the old one to the new one, in one step ----------------------------------------------------

old=$(readlink "$prefix/current" 2>/dev/null || :)
if [ "$old" != "releases/$release" ]; then
  ln -sfn "releases/$release" "$prefix/next"
  mv -T "$prefix/next" "$prefix/current"
  # The one before stays: a hub that still runs from it goes on, and its bundle's install.sh turns back to it at once.
  for each in "$prefix"/releases/*; do
    case $each in "$new" | "$prefix/$old") ;; *) rm -rf "$each" ;; esac
  done
fi
ln -sfn ../current/bin/unionhub "$prefix/bin/unionhub"

echo "Đã cài Union Hub $VERSION vào $prefix / installed."
if [ -n "$old" ]; then
  echo "Bước tiếp theo / next:  sudo systemctl restart unionhub   ($here/docs/deploy/upgrade.md)"
else
  echo "Bước tiếp theo / next:  $here/docs/deploy/install.md"
  echo "Thử ngay / just try it: $prefix/bin/unionhub init config && $prefix/bin/unionhub run"
fi
