// Receives events from a union hub: verifies, remembers, hands on. One file, no libraries, Java 17+.
//
//   var receiver = new UnionHubReceiver(List.of("whsec_..."), Path.of("ids.txt"));
//   var verdict = receiver.check(id, timestamp, signature, body);   // body: the raw bytes, before any JSON parser
//   if (verdict == Verdict.NEW) { /* store the event, then: */ receiver.remember(id); }
//   // NEW and REPEAT: answer 200; REFUSED: answer 401
//
// A try-out server: java UnionHubReceiver.java --port 8090 --keys keys.txt --ids ids.txt   (one key a line)
// Keys are whsec_... (shared secret, v1) or whpk_... (the hub's public key, v1a).

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.MessageDigest;
import java.security.PublicKey;
import java.security.Signature;
import java.security.spec.X509EncodedKeySpec;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.regex.Pattern;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

public final class UnionHubReceiver {
  public enum Verdict { NEW, REPEAT, REFUSED }

  private static final long TOLERANCE_S = 300;
  private static final long KEEP_IDS_S = 30L * 86400;
  private static final int BODY_BYTES = 2 * 1024 * 1024;
  private static final Pattern ID = Pattern.compile("[A-Za-z0-9_-]{1,128}");
  private static final Pattern TIMESTAMP = Pattern.compile("[0-9]{1,12}");
  // What stands before the 32 bytes of an Ed25519 key in its DER form (RFC 8410).
  private static final byte[] ED25519 = HexFormat.of().parseHex("302a300506032b6570032100");

  private final List<byte[]> secrets = new ArrayList<>();
  private final List<PublicKey> publicKeys = new ArrayList<>();
  private final Map<String, Long> ids = new ConcurrentHashMap<>();
  private final FileChannel idFile;

  /** Any of the keys may have signed; ids that were done are kept in the file, which only one process may use. */
  public UnionHubReceiver(List<String> keys, Path idPath) throws IOException, GeneralSecurityException {
    for (String key : keys) {
      if (key.startsWith("whsec_")) secrets.add(decoded(key.substring(6)));
      if (key.startsWith("whpk_")) {
        byte[] der = joined(ED25519, decoded(key.substring(5)));
        publicKeys.add(KeyFactory.getInstance("Ed25519").generatePublic(new X509EncodedKeySpec(der)));
      }
    }
    if (secrets.isEmpty() && publicKeys.isEmpty()) throw new IllegalArgumentException("no key: give whsec_ or whpk_");
    long since = System.currentTimeMillis() / 1000 - KEEP_IDS_S;
    if (Files.exists(idPath)) {
      for (String line : Files.readAllLines(idPath, StandardCharsets.ISO_8859_1)) {
        String[] parts = line.trim().split(" ");
        if (parts.length == 2 && TIMESTAMP.matcher(parts[0]).matches() && Long.parseLong(parts[0]) > since)
          ids.put(parts[1], Long.parseLong(parts[0]));
      }
    }
    idFile = FileChannel.open(idPath, StandardOpenOption.CREATE, StandardOpenOption.WRITE, StandardOpenOption.TRUNCATE_EXISTING);
    for (var known : ids.entrySet()) write(known.getValue() + " " + known.getKey());
  }

  /** Never throws for what a request holds; missing headers are null. */
  public Verdict check(String id, String timestamp, String signature, byte[] body) {
    if (id == null || timestamp == null || signature == null) return Verdict.REFUSED;
    if (!ID.matcher(id).matches() || !TIMESTAMP.matcher(timestamp).matches()) return Verdict.REFUSED;
    if (Math.abs(System.currentTimeMillis() / 1000 - Long.parseLong(timestamp)) > TOLERANCE_S) return Verdict.REFUSED;
    byte[] signed = joined((id + "." + timestamp + ".").getBytes(StandardCharsets.US_ASCII), body);
    if (!isSigned(signature, signed)) return Verdict.REFUSED;
    return ids.containsKey(id) ? Verdict.REPEAT : Verdict.NEW;
  }

  /** Call it once the event is stored: what was not remembered comes as new again. */
  public synchronized void remember(String id) {
    long now = System.currentTimeMillis() / 1000;
    ids.put(id, now);
    write(now + " " + id);
  }

  private void write(String line) {
    try {
      idFile.write(ByteBuffer.wrap((line + "\n").getBytes(StandardCharsets.US_ASCII)));
      idFile.force(false);
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }

  private boolean isSigned(String value, byte[] signed) {
    String[] entries = value.split(" ", 9);
    for (int n = 0; n < Math.min(entries.length, 8); n++) {
      int comma = entries[n].indexOf(',');
      if (comma < 0) continue;
      byte[] given;
      try {
        given = Base64.getDecoder().decode(entries[n].substring(comma + 1));
      } catch (IllegalArgumentException error) {
        continue;
      }
      // The kind of our key says the algorithm; isEqual takes as long for any answer.
      String version = entries[n].substring(0, comma);
      if (version.equals("v1") && secrets.stream().anyMatch(key -> MessageDigest.isEqual(given, hmac(key, signed)))) return true;
      if (version.equals("v1a") && publicKeys.stream().anyMatch(key -> fits(key, given, signed))) return true;
    }
    return false;
  }

  private static byte[] hmac(byte[] key, byte[] signed) {
    try {
      Mac mac = Mac.getInstance("HmacSHA256");
      mac.init(new SecretKeySpec(key, "HmacSHA256"));
      return mac.doFinal(signed);
    } catch (GeneralSecurityException error) {
      throw new IllegalStateException(error);
    }
  }

  private static boolean fits(PublicKey key, byte[] given, byte[] signed) {
    try {
      Signature check = Signature.getInstance("Ed25519");
      check.initVerify(key);
      check.update(signed);
      return check.verify(given);
    } catch (GeneralSecurityException error) {
      return false;
    }
  }

  private static byte[] decoded(String text) {
    byte[] raw = Base64.getDecoder().decode(text.trim());
    if (raw.length < 24) throw new IllegalArgumentException("the key is too short");
    return raw;
  }

  private static byte[] joined(byte[] first, byte[] second) {
    return ByteBuffer.allocate(first.length + second.length).put(first).put(second).array();
  }

  // -- the try-out server --------------------------------------------------------------------------

  private void handle(HttpExchange exchange) throws IOException {
    try (exchange) {
      byte[] body = exchange.getRequestBody().readNBytes(BODY_BYTES + 1);
      var headers = exchange.getRequestHeaders();
      String id = headers.getFirst("webhook-id");
      int status = 413;
      String text = "too large";
      if (body.length <= BODY_BYTES) {
        Verdict verdict = check(id, headers.getFirst("webhook-timestamp"), headers.getFirst("webhook-signature"), body);
        if (verdict == Verdict.NEW) {
          System.out.println("event " + id + " " + body.length + " bytes");
          remember(id);
        }
        status = verdict == Verdict.REFUSED ? 401 : 200;
        text = verdict.name().toLowerCase();
      }
      exchange.sendResponseHeaders(status, text.length());
      exchange.getResponseBody().write(text.getBytes(StandardCharsets.US_ASCII));
    }
  }

  public static void main(String[] arguments) throws Exception {
    var given = List.of(arguments);
    int port = Integer.parseInt(option(given, "--port", "8090"));
    var keys = Files.readAllLines(Path.of(option(given, "--keys", "keys.txt"))).stream().map(String::trim).filter(line -> !line.isEmpty()).toList();
    var receiver = new UnionHubReceiver(keys, Path.of(option(given, "--ids", "ids.txt")));
    HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
    server.createContext("/", receiver::handle);
    server.setExecutor(Executors.newFixedThreadPool(8));
    server.start();
    System.out.println("listening " + server.getAddress().getPort());
  }

  private static String option(List<String> given, String name, String otherwise) {
    int at = given.indexOf(name);
    return at < 0 || at + 1 == given.size() ? otherwise : given.get(at + 1);
  }
}
