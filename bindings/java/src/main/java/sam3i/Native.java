package sam3i;

import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/** The functions of src/main/cpp/sam3i_jni.cpp. Text goes both ways as bytes of UTF-8: JNI's own is another one. */
final class Native {
    static {
        System.loadLibrary("sam3i_jni");
    }

    private Native() {}

    /** Gives the segmenter's handle. */
    static native long open(
            byte[] bundle, byte[] device, byte[] precision, byte[] runtime, byte[] engineCache, int threads,
            float threshold, int instructionCache);

    static native void close(long segmenter);

    /** Fills what `Info` reads, in its order. */
    static native void info(long segmenter, int[] numbers, float[] threshold, byte[][] texts);

    /** Gives the scene's handle; the buffers are direct, and only for YUV_420 are the last two not null. */
    static native long encode(
            long segmenter, int format, ByteBuffer first, ByteBuffer u, ByteBuffer v, int width, int height,
            long stride, long chromaStride, int chromaPixelStride, int rotation);

    static native void closeScene(long scene);

    /** Gives the result's handle. */
    static native long segment(
            long scene, byte[] instruction, int level, double[] boxes, int[] labels, float threshold,
            double suppress);

    static native void closeResult(long result);

    /** Fills what `Result` reads, in its order. */
    static native void answer(long result, int[] numbers, float[] threshold, double[] presenceAndMilliseconds);

    /** Fills the score, and then the box. */
    static native void instance(long result, int index, float[] values);

    /** Fills the box and the area; gives the run lengths. */
    static native int[] mask(long result, int index, int[] bbox, long[] area);

    static native void bitmap(long result, int index, byte inside, byte[] bitmap);

    /** Gives int[] starts, byte[] hole, float[] points, as sam3i_polygons has them. */
    static native Object[] polygons(long result, int index);

    /** UTF-8 and a zero, or null of null. */
    static byte[] bytes(String text) {
        if (text == null) {
            return null;
        }
        try {
            ByteBuffer found = StandardCharsets.UTF_8.newEncoder().encode(CharBuffer.wrap(text));
            if (text.indexOf('\0') >= 0) {
                throw new IllegalArgumentException("the text has a character 0, which ends it in C: take it out");
            }
            return Arrays.copyOf(Arrays.copyOfRange(found.array(), 0, found.limit()), found.limit() + 1);
        } catch (CharacterCodingException error) {
            throw new IllegalArgumentException("the text has half of a surrogate pair, which is no character", error);
        }
    }

    static String text(byte[] utf8) {
        return new String(utf8, StandardCharsets.UTF_8);
    }
}
