package sam3i;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/** The answer to one question. Its numbers stay when it is closed; masks can then no longer be asked for. */
public final class Result implements AutoCloseable {
    private final int[] numbers = new int[7];
    private final float[] threshold = new float[1];
    private final double[] measured = new double[8];
    private final List<Instance> instances = new ArrayList<>();
    private final Handle handle;

    Result(long address) {
        handle = new Handle(address, "Result", Native::closeResult);
        Native.answer(address, numbers, threshold, measured);
        for (int index = 0; index < numbers[0]; index++) {
            float[] values = new float[5];
            Native.instance(address, index, values);
            instances.add(new Instance(this, index, values));
        }
    }

    /** Best first; none is a normal answer. */
    public List<Instance> instances() {
        return Collections.unmodifiableList(instances);
    }

    /** Of the upright picture, pixels. */
    public int width() {
        return numbers[1];
    }

    public int height() {
        return numbers[2];
    }

    /** At which it was answered. */
    public Level level() {
        return Level.values()[numbers[3]];
    }

    /** Whether the words of the instruction chose the level. */
    public boolean levelWasChosen() {
        return numbers[4] == 1;
    }

    /** Tokens dropped from the end of a too long instruction. */
    public int tokensCut() {
        return numbers[5];
    }

    /** Whether all of the detector's queries passed, so that there may be more instances. */
    public boolean truncated() {
        return numbers[6] == 1;
    }

    /** Scores at or below it were dropped. */
    public float threshold() {
        return threshold[0];
    }

    /** Probability that the picture holds what was asked for at all. */
    public double presence() {
        return measured[0];
    }

    /** Of this question, without encoding the picture. */
    public double milliseconds() {
        return measured[7];
    }

    /** Of the scene: making the model's input, and encoding it. */
    public double encodeMilliseconds() {
        return measured[1] + measured[2];
    }

    Handle handle() {
        return handle;
    }

    @Override
    public void close() {
        handle.close();
    }
}
