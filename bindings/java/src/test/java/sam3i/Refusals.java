package sam3i;

import java.nio.ByteBuffer;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/** Wrong use gives one clear line and never ends the virtual machine; what is closed is not used. */
final class Refusals {
    private static int told;

    private Refusals() {}

    public static void main(String[] arguments) throws InterruptedException {
        String bundle = arguments[0];
        pictures();
        questions();
        failed(Sam3iException.Status.BAD_BUNDLE, "no bundle", () -> new Segmenter("/nowhere/at all"));
        Segmenter.Options unknown = new Segmenter.Options().device("abacus");
        failed(Sam3iException.Status.UNAVAILABLE, "abacus", () -> new Segmenter(bundle, unknown));
        refused(IllegalArgumentException.class, "null", () -> new Segmenter(null));
        Segmenter segmenter = new Segmenter(bundle, new Segmenter.Options().threads(1));
        Info info = segmenter.info();
        check(info.imageSize() > 0 && info.threads() == 1 && info.levels().contains(Level.CONCEPT), "info");
        check(!info.model().isEmpty() && !info.variant().isEmpty() && info.device().equals("cpu"), "info's texts");
        check(!info.runtime().isEmpty() && !info.runtimeVersion().isEmpty() && info.precision().equals("fp32"), "info's runtime");
        Image grey = Image.of(new byte[64 * 48], 64, 48, Image.Format.GRAY8);
        failed(Sam3iException.Status.INVALID_ARGUMENT, "45", () -> segmenter.encode(grey.rotated(45)));
        Scene scene = segmenter.encode(grey);
        failed(Sam3iException.Status.BAD_INSTRUCTION, "", () -> scene.segment("  "));
        failed(Sam3iException.Status.BAD_INSTRUCTION, "", () -> scene.segment((String) null));
        refused(IllegalArgumentException.class, "surrogate", () -> scene.segment("\ud83d"));
        refused(IllegalArgumentException.class, "character 0", () -> scene.segment("a\0b"));
        failed(Sam3iException.Status.INVALID_ARGUMENT, "threshold", () -> scene.segment(Question.of("star").threshold(2)));
        Result result = scene.segment(Question.of("\u661f star").threshold(0));
        check(result.width() == 64 && result.height() == 48 && result.milliseconds() > 0, "the answer");
        check(!result.instances().isEmpty(), "instances at threshold 0");
        Instance first = result.instances().get(0);
        check(first.bitmap().length == 64 * 48, "the bitmap");
        result.close();
        result.close();
        check(first.score() > 0 && first.box().length == 4, "numbers stay");
        refused(IllegalStateException.class, "Result was closed", first::mask);
        closingWaits(segmenter, grey);
        segmenter.close();
        segmenter.close();
        failed(Sam3iException.Status.UNAVAILABLE, "closed", () -> scene.segment("another star"));
        scene.close();
        refused(IllegalStateException.class, "Scene was closed", () -> scene.segment("star"));
        refused(IllegalStateException.class, "Segmenter was closed", segmenter::info);
        System.out.println(told + " passed, 0 failed");
    }

    private static void pictures() {
        refused(IllegalArgumentException.class, "48 rows", () -> Image.of(new byte[100], 64, 48, Image.Format.RGB));
        refused(IllegalArgumentException.class, "-1 x 4", () -> Image.of(new byte[100], -1, 4, Image.Format.RGB));
        ByteBuffer plane = ByteBuffer.allocate(64);
        refused(IllegalArgumentException.class, "rows of 3", () -> Image.of(plane, 4, 4, Image.Format.GRAY8, 3));
        refused(IllegalArgumentException.class, "even sides", () -> Image.yuv420(plane, plane, plane, 5, 4, 8, 4, 1));
        refused(IllegalArgumentException.class, "1 byte apart", () -> Image.yuv420(plane, plane, plane, 8, 8, 8, 4, 0));
        refused(IllegalArgumentException.class, "v has 6", () -> Image.yuv420(plane, plane, ByteBuffer.allocate(6), 8, 8, 8, 8, 2));
    }

    private static void questions() {
        double[][] boxes = {{1, 2, 3, 4}};
        refused(IllegalArgumentException.class, "2 labels", () -> Question.of("a").boxes(boxes, new boolean[2]));
        refused(IllegalArgumentException.class, "3 numbers", () -> Question.of("a").boxes(new double[][] {{1, 2, 3}}, null));
    }

    /** Threads ask while another closes: each question is answered or refused. */
    private static void closingWaits(Segmenter segmenter, Image image) throws InterruptedException {
        Scene scene = segmenter.encode(image);
        AtomicInteger answered = new AtomicInteger();
        AtomicInteger late = new AtomicInteger();
        ExecutorService threads = Executors.newFixedThreadPool(4);
        for (int thread = 0; thread < 4; thread++) {
            threads.execute(() -> {
                try {
                    while (true) {
                        scene.segment("star").close();
                        answered.incrementAndGet();
                    }
                } catch (IllegalStateException closed) {
                    late.incrementAndGet();
                }
            });
        }
        while (answered.get() < 20) {
            Thread.sleep(1);
        }
        scene.close();
        threads.shutdown();
        check(threads.awaitTermination(60, TimeUnit.SECONDS) && late.get() == 4, "closing waits for its users");
    }

    private static void failed(Sam3iException.Status status, String words, Runnable call) {
        Sam3iException error = refused(Sam3iException.class, words, call);
        check(error.status() == status, error.status() + " for " + status + ": " + error.getMessage());
    }

    private static <T extends RuntimeException> T refused(Class<T> type, String words, Runnable call) {
        try {
            call.run();
        } catch (RuntimeException error) {
            check(type.isInstance(error) && error.getMessage().contains(words), error.toString());
            return type.cast(error);
        }
        throw new AssertionError("nothing was refused, want " + type.getSimpleName() + " with '" + words + "'");
    }

    private static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
        told++;
    }
}
