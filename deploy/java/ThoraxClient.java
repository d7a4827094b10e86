import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.util.Arrays;
import java.util.UUID;
import org.zeromq.ZMQ;
import thorax.v1.Diagnosis.DiagnosisReply;
import thorax.v1.Diagnosis.DiagnosisRequest;
import thorax.v1.Diagnosis.Status;
import thorax.v1.EnvelopeOuterClass.Envelope;

/**
 * Asks a Thorax pool about chest X-rays, one question at a time: members or routers, one after the other, until one answers or the
 * time is over. proto/WIRE.md says why it does what it does; deploy/java/build compiles it. JeroMQ as Debian has it speaks
 * TCP in the clear only: deploy/README.md says how it reaches members with keys. Research and integration; not a medical device.
 */
public final class ThoraxClient implements AutoCloseable {
    /** There is no answer, or none that may be believed. */
    public static final class Unanswered extends Exception {
        Unanswered(String message) {
            super(message);
        }
    }

    private static final int ROUND_PAUSE_MS = 50;
    private static final int PATIENCE_MS = 2000; // with one endpoint of several; then the next one is asked

    private final ZMQ.Context context = ZMQ.context(1);
    private final String[] endpoints;
    private final int timeoutMs;
    private int turn;

    /** endpoints: tcp://HOST:PORT. timeoutMs: for each question, asking again included. */
    public ThoraxClient(String[] endpoints, int timeoutMs) {
        this.endpoints = endpoints.clone();
        this.timeoutMs = timeoutMs;
    }

    /** image: a JPEG or PNG file as it is. An OK, a refusal that holds everywhere, or the last refusal when the time is over. */
    public DiagnosisReply diagnose(byte[] image) throws Unanswered {
        long deadline = System.nanoTime() + timeoutMs * 1000000L;
        String id = UUID.randomUUID().toString();
        DiagnosisReply last = null;
        String reason = "the time was over at once";
        for (int tries = 1;; tries++) {
            int left = (int) ((deadline - System.nanoTime()) / 1000000L);
            if (left <= 0) {
                break;
            }
            try {
                last = ask(image, id, left);
                if (!last.getRetryable()) {
                    return last;
                }
            } catch (Unanswered why) {
                reason = why.getMessage();
            }
            turn = (turn + 1) % endpoints.length;
            if (tries % endpoints.length == 0) {
                pause(Math.min(left, Math.max(ROUND_PAUSE_MS, last == null ? 0 : last.getRetryAfterMs())));
            }
        }
        if (last == null) {
            throw new Unanswered("no answer within " + timeoutMs + " ms: " + reason);
        }
        return last;
    }

    /** Asks the endpoint whose turn it is once, over a socket of its own, so that no late reply is taken for the next one's. */
    private DiagnosisReply ask(byte[] image, String id, int leftMs) throws Unanswered {
        DiagnosisRequest request = DiagnosisRequest.newBuilder().setRequestId(id).setTimeoutMs(leftMs)
            .setEncoded(ByteString.copyFrom(image)).build();
        Envelope envelope = Envelope.newBuilder().setProtocolVersion(1).setDiagnosisRequest(request).build();
        int patienceMs = endpoints.length == 1 ? leftMs : Math.min(leftMs, PATIENCE_MS);
        ZMQ.Socket socket = context.socket(ZMQ.REQ);
        try {
            socket.setLinger(0);
            socket.setReceiveTimeOut(patienceMs);
            socket.connect(endpoints[turn]);
            socket.send(envelope.toByteArray(), 0);
            byte[] payload = socket.recv(0);
            if (payload == null) {
                throw new Unanswered("no reply within " + patienceMs + " ms");
            }
            return check(payload, id, image);
        } finally {
            socket.close();
        }
    }

    /** The reply in payload, once it is certain that it is to this request and about this image. */
    static DiagnosisReply check(byte[] payload, String id, byte[] image) throws Unanswered {
        DiagnosisReply reply;
        try {
            reply = Envelope.parseFrom(payload).getDiagnosisReply();
        } catch (InvalidProtocolBufferException reason) {
            throw new Unanswered("the reply is no message");
        }
        if (reply.getStatus() == Status.STATUS_UNSPECIFIED) {
            throw new Unanswered("the reply has no status");
        }
        if (reply.getStatus() == Status.STATUS_OK) {
            if (!reply.getRequestId().equals(id)) {
                throw new Unanswered("the reply is to another request");
            }
            if (!Arrays.equals(reply.getImageSha256().toByteArray(), sha256(image))) {
                throw new Unanswered("the reply is about another image");
            }
        }
        return reply;
    }

    private static byte[] sha256(byte[] bytes) {
        try {
            return MessageDigest.getInstance("SHA-256").digest(bytes);
        } catch (GeneralSecurityException impossible) { // every Java has it
            throw new IllegalStateException(impossible);
        }
    }

    private static void pause(int ms) {
        try {
            Thread.sleep(ms);
        } catch (InterruptedException stop) {
            Thread.currentThread().interrupt();
        }
    }

    @Override
    public void close() {
        context.term();
    }

    /** ThoraxClient ENDPOINT[,ENDPOINT...] FILE...: a line for each file; exit code 1 where any got no answer. */
    public static void main(String[] arguments) throws Exception {
        if (arguments.length < 2) {
            System.err.println("usage: ThoraxClient ENDPOINT[,ENDPOINT...] FILE...");
            System.exit(2);
        }
        boolean failed = false;
        try (ThoraxClient client = new ThoraxClient(arguments[0].split(","), 30000)) {
            for (String file : Arrays.copyOfRange(arguments, 1, arguments.length)) {
                try {
                    DiagnosisReply reply = client.diagnose(Files.readAllBytes(Paths.get(file)));
                    failed |= reply.getStatus() != Status.STATUS_OK;
                    System.out.println(file + ": " + describe(reply));
                } catch (Unanswered reason) {
                    failed = true;
                    System.out.println(file + ": no answer: " + reason.getMessage());
                }
            }
        }
        System.exit(failed ? 1 : 0);
    }

    private static String describe(DiagnosisReply reply) {
        if (reply.getStatus() != Status.STATUS_OK) {
            return "no answer: " + reply.getStatus() + ": " + reply.getMessage();
        }
        StringBuilder line = new StringBuilder(reply.getDecision().toString());
        reply.getProbabilitiesList().forEach(
            row -> line.append(' ').append(row.getLabel()).append(' ').append(row.getProbability()));
        return line + " (" + reply.getModel().getName() + " " + reply.getModel().getVersion() + ")";
    }
}
