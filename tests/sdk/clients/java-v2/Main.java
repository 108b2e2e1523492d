import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.util.stream.Collectors;
import software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider;
import software.amazon.awssdk.core.SelectedAuthScheme;
import software.amazon.awssdk.core.interceptor.Context;
import software.amazon.awssdk.core.interceptor.ExecutionAttributes;
import software.amazon.awssdk.core.interceptor.ExecutionInterceptor;
import software.amazon.awssdk.core.interceptor.SdkInternalExecutionAttribute;
import software.amazon.awssdk.core.util.VersionInfo;
import software.amazon.awssdk.identity.spi.AwsCredentialsIdentity;
import software.amazon.awssdk.identity.spi.Identity;
import software.amazon.awssdk.protocols.jsoncore.JsonWriter;
import software.amazon.awssdk.services.sts.StsClient;

/** AWS SDK for Java v2 with its default credentials chain, one JSON line for each line on stdin. */
public final class Main {
    /** What signed, read off the call itself: to ask the provider again could be a request of its own. */
    private static final class WhatSigned implements ExecutionInterceptor {
        private Identity identity;

        @Override
        public void beforeTransmission(Context.BeforeTransmission call, ExecutionAttributes attributes) {
            SelectedAuthScheme<?> scheme = attributes.getAttribute(SdkInternalExecutionAttribute.SELECTED_AUTH_SCHEME);
            identity = scheme == null ? null : scheme.identity().join();
        }
    }

    private final PrintStream out;
    private final WhatSigned signed = new WhatSigned();
    private StsClient kept = StsClient.builder().overrideConfiguration(o -> o.addExecutionInterceptor(signed)).build();

    private Main(PrintStream out) {
        this.out = out;
    }

    /** All clients of a process share one default chain; a newly started program would have its own. */
    private void renew() {
        kept = StsClient.builder()
                .credentialsProvider(DefaultCredentialsProvider.builder().build())
                .overrideConfiguration(o -> o.addExecutionInterceptor(signed))
                .build();
    }

    private static JsonWriter field(JsonWriter json, String name, String value) {
        json.writeFieldName(name);
        return value == null ? json.writeNull() : json.writeValue(value);
    }

    private JsonWriter call(JsonWriter json) {
        String arn = kept.getCallerIdentity().arn();
        Identity identity = signed.identity;
        json.writeFieldName("ok").writeValue(true);
        field(json, "arn", arn);
        field(json, "key", identity instanceof AwsCredentialsIdentity keys ? keys.accessKeyId() : null);
        return field(json, "expiration",
                identity == null ? null : identity.expirationTime().map(Object::toString).orElse(null));
    }

    /** As the JVM prints an exception that nobody catches, causes included, less the stack frames. */
    private static String told(Throwable thrown) {
        StringWriter trace = new StringWriter();
        thrown.printStackTrace(new PrintWriter(trace, true));
        return trace.toString().lines()
                .filter(line -> !line.matches("\\s+(at .*|\\.\\.\\. \\d+ more)"))
                .collect(Collectors.joining("\n"));
    }

    private void answer(boolean fresh) {
        long begun = System.nanoTime();
        JsonWriter json = JsonWriter.create();
        try {
            if (fresh) {
                renew();
            }
            json = call(JsonWriter.create().writeStartObject());
        } catch (RuntimeException e) {
            json = field(JsonWriter.create().writeStartObject().writeFieldName("ok").writeValue(false), "text", told(e));
        }
        say(json.writeFieldName("seconds").writeValue((System.nanoTime() - begun) / 1_000_000 / 1000.0));
    }

    private void say(JsonWriter json) {
        out.println(new String(json.writeEndObject().getBytes(), StandardCharsets.UTF_8));
        out.flush();
    }

    private void serve(BufferedReader lines) throws IOException {
        JsonWriter hello = field(JsonWriter.create().writeStartObject(), "client", "java-v2");
        say(field(hello, "version", VersionInfo.SDK_VERSION));
        for (String line = lines.readLine(); line != null && !line.equals("quit"); line = lines.readLine()) {
            answer(line.equals("fresh"));
        }
    }

    public static void main(String[] arguments) throws IOException {
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        System.setOut(System.err);
        new Main(out).serve(new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8)));
        System.exit(0);
    }
}
