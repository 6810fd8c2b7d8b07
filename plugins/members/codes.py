"""Why a row or a file cannot be taken, in words an office understands.

A row reason stops that row only; a row note is worth a look but the row is imported; a refusal stops the whole file.
"""

from __future__ import annotations

from dataclasses import dataclass

from hub.errors import InputError


@dataclass(frozen=True, slots=True)
class Words:
    vi: str
    en: str


#: Code -> words for a row that was not imported.
ROW_REASONS: dict[str, Words] = {
    "name_missing": Words("Thiếu họ và tên.", "The name is missing."),
    "name_invalid": Words(
        "Họ tên có ký tự lạ (có thể do phông chữ cũ .VnTime, VNI). Gõ lại bằng Unicode.",
        "The name has odd characters (perhaps an old font). Type it again in Unicode.",
    ),
    "birth_date_invalid": Words(
        "Ngày sinh không có trong lịch hoặc sai dạng. Ghi ngày/tháng/năm, ví dụ 05/03/1985.",
        "The birth date is no calendar date. Write day/month/year, for example 05/03/1985.",
    ),
    "birth_date_range": Words(
        "Ngày sinh cho tuổi dưới 15 hoặc trên 100. Kiểm tra lại năm sinh.",
        "The birth date gives an age below 15 or above 100. Check the year.",
    ),
    "sex_unclear": Words("Giới tính phải là Nam hoặc Nữ.", "Sex must be Nam or Nữ."),
    "sex_twice": Words(
        "Ghi cả cột Nam và cột Nữ. Chỉ để lại một cột.", "Both columns Nam and Nữ are filled. Keep one of them."
    ),
    "citizen_number_invalid": Words(
        "Số CCCD có ký tự không phải chữ số.", "The citizen number has characters that are not digits."
    ),
    "citizen_number_length": Words("Số CCCD phải có 12 chữ số.", "A citizen number has 12 digits."),
    "citizen_number_old": Words(
        "Đây là số CMND 9 số, không còn dùng. Ghi số CCCD 12 số.",
        "This is an old 9-digit identity number. Write the 12-digit citizen number.",
    ),
    "citizen_number_sex": Words(
        "Số CCCD không khớp giới tính. Kiểm tra cả hai.", "The citizen number does not fit the sex. Check both."
    ),
    "citizen_number_birth_year": Words(
        "Số CCCD không khớp năm sinh. Kiểm tra cả hai.",
        "The citizen number does not fit the year of birth. Check both.",
    ),
    "citizen_number_reused": Words(
        "Cùng số CCCD này còn ghi cho người khác tên trong tệp. Kiểm tra cả hai dòng.",
        "The same citizen number stands beside another name in this file. Check both rows.",
    ),
    "phone_invalid": Words(
        "Số điện thoại không đúng. Số di động Việt Nam có 10 chữ số, bắt đầu bằng 0.",
        "The phone number is wrong. A Vietnamese mobile number has 10 digits and starts with 0.",
    ),
    "phone_not_mobile": Words(
        "Đây là số máy bàn, không nhận được tin nhắn. Ghi số di động hoặc để trống.",
        "This is a landline and cannot get messages. Write a mobile number or leave it empty.",
    ),
    "app_mark_unclear": Words(
        "Cột cài app: đánh dấu x nếu đã cài, để trống nếu chưa.", "App column: x if installed, empty if not."
    ),
    "status_unclear": Words(
        "Tình trạng không rõ. Ghi: đang sinh hoạt, chuyển, nghỉ hưu hoặc thôi việc.",
        "The status is unclear. Write: đang sinh hoạt, chuyển, nghỉ hưu or thôi việc.",
    ),
    "joined_on_invalid": Words("Ngày vào công đoàn không đúng.", "The date of joining the union is wrong."),
    "identity_missing": Words(
        "Không có số CCCD và ngày sinh nên không phân biệt được với người trùng tên. Ghi thêm một trong hai.",
        "Neither citizen number nor birth date: the person cannot be told from namesakes. Add one of them.",
    ),
    "unit_missing": Words(
        "Không biết đoàn viên thuộc đơn vị nào. Ghi mã đơn vị, hoặc chạy lại với --unit MÃ.",
        "The unit is not known. Write the unit code, or run again with --unit CODE.",
    ),
    "person_ambiguous": Words(
        "Có nhiều người trùng họ tên và ngày sinh. Ghi số CCCD để phân biệt.",
        "Several people share this name and birth date. Add the citizen number.",
    ),
    "member_erased": Words(
        "Dữ liệu của đoàn viên này đã được xóa theo yêu cầu, không nhập lại.",
        "This member's data was erased on request and is not imported again.",
    ),
}

#: Code -> words for something noticed about a row that was imported.
ROW_NOTES: dict[str, Words] = {
    "phone_two_numbers": Words(
        "Ô có nhiều số điện thoại, đã lấy số đầu tiên.", "The cell has several phone numbers; the first was taken."
    ),
    "citizen_number_province": Words(
        "Mã tỉnh trong số CCCD không có trong danh mục. Vẫn nhập, nên kiểm tra lại.",
        "The province code of the citizen number is not on the list. Imported; check it.",
    ),
    "duplicate_differs": Words(
        "Người này có nhiều dòng ghi khác nhau, đã lấy dòng đầy đủ nhất.",
        "This person has several differing rows; the fullest was taken.",
    ),
}

#: Problem -> words for a file that was refused as a whole. ``{limit}`` is filled where it occurs.
REFUSALS: dict[str, Words] = {
    "file-missing": Words(
        "Không mở được tệp. Kiểm tra đường dẫn và quyền đọc.",
        "The file cannot be opened. Check the path and its rights.",
    ),
    "file-too-big": Words(
        "Tệp quá lớn (giới hạn {limit}). Chia danh sách thành nhiều tệp rồi nhập từng tệp.",
        "The file is too big (limit {limit}). Split the list into several files.",
    ),
    "file-old-excel": Words(
        "Tệp là Excel đời cũ (.xls) hoặc có mật khẩu. Mở bằng Excel, bỏ mật khẩu, lưu thành .xlsx rồi nhập lại.",
        "The file is an old .xls or has a password. Open it in Excel, remove the password, save as .xlsx.",
    ),
    "file-not-excel": Words(
        "Tệp không phải là Excel (.xlsx). Mở bằng Excel rồi lưu thành .xlsx.",
        "The file is not an Excel workbook (.xlsx). Open it in Excel and save as .xlsx.",
    ),
    "file-broken": Words(
        "Tệp Excel bị hỏng, không đọc được. Mở bằng Excel, lưu thành tệp mới rồi nhập lại.",
        "The Excel file is damaged. Open it in Excel, save it under a new name and import that.",
    ),
    "archive-unsafe": Words(
        "Cấu trúc nén bên trong tệp không an toàn nên không mở. Xin lại tệp gốc từ đơn vị, lưu bằng Excel.",
        "The archive inside the file is not safe and was not opened. Ask the unit for the original, saved by Excel.",
    ),
    "sheet-too-big": Words(
        "Trang tính quá rộng hoặc quá dài (giới hạn {limit} ô). Xóa các dòng, cột thừa ở xa bảng rồi lưu lại.",
        "A sheet is too wide or too long (limit {limit} cells). Delete stray rows and columns and save again.",
    ),
    "header-not-found": Words(
        "Không tìm thấy dòng tiêu đề của danh sách đoàn viên. Cần có cột Họ và tên và ít nhất hai cột trong số: "
        "Ngày sinh, Giới tính, Số CCCD, Số điện thoại, Đơn vị, Số thẻ đoàn viên, Cài app.",
        "No header row of a member list was found. It needs a column Họ và tên and at least two more of: "
        "Ngày sinh, Giới tính, Số CCCD, Số điện thoại, Đơn vị, Số thẻ đoàn viên, Cài app.",
    ),
}

_NOTHING_CHANGED = Words("Chưa có gì được ghi.", "Nothing was changed.")


def refusal(problem: str, *, limit: str = "") -> InputError:
    """The error for a refused file: Vietnamese first, then English, never a value from the file."""
    words = REFUSALS[problem]
    text = f"{words.vi} {_NOTHING_CHANGED.vi}\n{words.en} {_NOTHING_CHANGED.en}".replace("{limit}", limit)
    return InputError(text, problem=problem, status=413 if problem == "file-too-big" else 422)


def words_for(code: str) -> Words:
    """The words of a row reason or note."""
    return ROW_REASONS.get(code) or ROW_NOTES[code]
