package sam3i;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;

/**
 * Answers what tests/native/test_java.py asks: a line a picture, a line a question, and a line of JSON an answer.
 *
 * <pre>
 * picture FILE FORMAT WIDTH HEIGHT STRIDE ROTATION PLANES
 * ask INSTRUCTION LEVEL THRESHOLD SUPPRESS BOXES LABELS      (- for what is not given; the instruction in base64)
 * </pre>
 */
final class Answers {
    private Answers() {}

    public static void main(String[] arguments) throws IOException {
        Segmenter.Options options =
                new Segmenter.Options().runtime(arguments[1]).precision(arguments[2]).device("cpu").threads(1);
        try (Segmenter segmenter = new Segmenter(arguments[0], options);
                BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
            Scene scene = null;
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                String[] words = line.split(" ");
                if (words[0].equals("picture")) {
                    if (scene != null) {
                        scene.close();
                    }
                    scene = segmenter.encode(picture(words));
                } else {
                    try (Result result = scene.segment(question(words))) {
                        System.out.println(json(result));
                    }
                }
            }
            scene.close();
        }
    }

    private static Image picture(String[] words) throws IOException {
        byte[] bytes = Files.readAllBytes(Path.of(words[1]));
        int format = Integer.parseInt(words[2]);
        int width = Integer.parseInt(words[3]);
        int height = Integer.parseInt(words[4]);
        int stride = Integer.parseInt(words[5]);
        int rotation = Integer.parseInt(words[6]);
        if (format == Image.YUV_420) {
            return yuv(bytes, width, height, stride == 0 ? width : stride, words[7]).rotated(rotation);
        }
        Image.Format kind = Image.Format.values()[format];
        if (stride == 0) {
            return Image.of(bytes, width, height, kind).rotated(rotation);
        }
        return Image.of(ByteBuffer.wrap(bytes), width, height, kind, stride).rotated(rotation);
    }

    /** NV12 in the ways that cameras hand it out: in turn, in turn with v first, and in planes of their own. */
    private static Image yuv(byte[] nv12, int width, int height, int stride, String planes) {
        int luma = stride * height;
        ByteBuffer whole = ByteBuffer.allocateDirect(nv12.length).put(nv12);
        whole.position(0).limit(luma);
        ByteBuffer y = whole.slice();
        if (planes.equals("nv12")) {
            whole.limit(nv12.length).position(luma);
            ByteBuffer u = whole.slice();
            whole.position(luma + 1);
            return Image.yuv420(y, u, whole.slice(), width, height, stride, stride, 2);
        }
        int columns = width / 2;
        int rows = height / 2;
        ByteBuffer first = ByteBuffer.allocateDirect(2 * columns * rows + 1);
        ByteBuffer second = ByteBuffer.allocateDirect(columns * rows);
        for (int row = 0; row < rows; row++) {
            for (int column = 0; column < columns; column++) {
                byte blue = nv12[luma + row * stride + 2 * column];
                byte red = nv12[luma + row * stride + 2 * column + 1];
                if (planes.equals("nv21")) {
                    first.put(2 * (row * columns + column), red).put(2 * (row * columns + column) + 1, blue);
                } else {
                    first.put(row * columns + column, blue);
                    second.put(row * columns + column, red);
                }
            }
        }
        if (planes.equals("nv21")) {
            ByteBuffer u = first.duplicate();
            u.position(1);
            return Image.yuv420(y, u, first, width, height, stride, width, 2);
        }
        return Image.yuv420(y, first, second, width, height, stride, columns, 1);
    }

    private static Question question(String[] words) {
        String instruction =
                words[1].equals("-")
                        ? null
                        : new String(Base64.getDecoder().decode(words[1]), StandardCharsets.UTF_8);
        Question asked = Question.of(instruction);
        if (!words[2].equals("-")) {
            asked = asked.level(Level.valueOf(words[2].toUpperCase()));
        }
        if (!words[3].equals("-")) {
            asked = asked.threshold(Float.parseFloat(words[3]));
        }
        if (!words[4].equals("-")) {
            asked = asked.suppress(Double.parseDouble(words[4]));
        }
        if (words[5].equals("-")) {
            return asked;
        }
        double[] sides = Arrays.stream(words[5].split(",")).mapToDouble(Double::parseDouble).toArray();
        String[] labels = words[6].split(",");
        double[][] boxes = new double[labels.length][];
        boolean[] around = new boolean[labels.length];
        for (int box = 0; box < labels.length; box++) {
            boxes[box] = Arrays.copyOfRange(sides, 4 * box, 4 * box + 4);
            around[box] = labels[box].equals("1");
        }
        return asked.boxes(boxes, around);
    }

    private static String json(Result result) {
        StringBuilder text = new StringBuilder();
        text.append("{\"width\":").append(result.width()).append(",\"height\":").append(result.height());
        text.append(",\"level\":\"").append(result.level().name().toLowerCase()).append('"');
        text.append(",\"level_auto\":").append(result.levelWasChosen());
        text.append(",\"presence\":").append(result.presence());
        text.append(",\"tokens_cut\":").append(result.tokensCut());
        text.append(",\"truncated\":").append(result.truncated());
        text.append(",\"instances\":[");
        for (Instance found : result.instances()) {
            Instance.Mask mask = found.mask();
            int inside = 0;
            for (byte pixel : found.bitmap((byte) 255)) {
                inside += pixel & 1;
            }
            if (inside != mask.area()) {
                throw new AssertionError("the bitmap has " + inside + " pixels, the mask " + mask.area());
            }
            text.append("{\"score\":").append(found.score());
            text.append(",\"box\":").append(Arrays.toString(found.box()));
            text.append(",\"counts\":").append(Arrays.toString(mask.counts()));
            text.append(",\"area\":").append(mask.area());
            text.append(",\"bbox\":").append(Arrays.toString(mask.bbox()));
            text.append(",\"polygons\":").append(rings(found.outline())).append("},");
        }
        if (text.charAt(text.length() - 1) == ',') {
            text.setLength(text.length() - 1);
        }
        return text.append("]}").toString();
    }

    /** The rings of each part as lists of points, the outer one first. */
    private static String rings(List<Instance.Ring> outline) {
        StringBuilder text = new StringBuilder("[");
        for (Instance.Ring ring : outline) {
            if (!ring.hole()) {
                text.append(text.length() > 1 ? "],[" : "[");
            } else {
                text.append(',');
            }
            text.append('[');
            float[] points = ring.points();
            for (int at = 0; at < points.length; at += 2) {
                text.append(at > 0 ? "," : "").append('[').append(points[at]).append(',').append(points[at + 1]).append(']');
            }
            text.append(']');
        }
        return text.append(text.length() > 1 ? "]]" : "]").toString();
    }
}
