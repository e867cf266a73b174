package sam3i;

import java.util.EnumSet;
import java.util.Set;

/** What a segmenter runs. */
public final class Info {
    private final int[] numbers = new int[4];
    private final float[] threshold = new float[1];
    private final byte[][] texts = new byte[7][];

    Info(long segmenter) {
        Native.info(segmenter, numbers, threshold, texts);
    }

    /** Side of the square that pictures are resized to, pixels. */
    public int imageSize() {
        return numbers[0];
    }

    /** Most boxes of a question; 0: the model takes none. */
    public int maxBoxes() {
        return numbers[1];
    }

    /** The levels that the model has. */
    public Set<Level> levels() {
        EnumSet<Level> found = EnumSet.noneOf(Level.class);
        for (Level level : EnumSet.complementOf(EnumSet.of(Level.AUTO))) {
            if ((numbers[2] >> level.ordinal() & 1) == 1) {
                found.add(level);
            }
        }
        return found;
    }

    /** Of one operator. */
    public int threads() {
        return numbers[3];
    }

    /** Least score where a question names none. */
    public float threshold() {
        return threshold[0];
    }

    public String model() {
        return Native.text(texts[0]);
    }

    /** Of the bundle, that was opened. */
    public String variant() {
        return Native.text(texts[1]);
    }

    public String device() {
        return Native.text(texts[2]);
    }

    public String runtime() {
        return Native.text(texts[3]);
    }

    public String runtimeVersion() {
        return Native.text(texts[4]);
    }

    public String precision() {
        return Native.text(texts[5]);
    }

    /** What users of the model must know, such as what it was trained on; or "". */
    public String note() {
        return Native.text(texts[6]);
    }
}
