import java.awt.image.BufferedImage;
import java.io.File;
import java.io.IOException;
import java.util.Locale;
import javax.imageio.ImageIO;
import sam3i.Image;
import sam3i.Instance;
import sam3i.Result;
import sam3i.Sam3iException;
import sam3i.Scene;
import sam3i.Segmenter;

/** Segments a picture, tells what was found and draws it: {@code SegmentPicture BUNDLE PICTURE INSTRUCTION [OVERLAY.png]}. */
public final class SegmentPicture {
    private static final int[] COLOURS = {0xe63c3c, 0x3c8ce6, 0x3cb45a, 0xf0aa28, 0xa050c8};
    private static final int[] SHIFTS = {16, 8, 0, 24}; // red, green, blue and alpha in a pixel of Java

    public static void main(String[] args) {
        if (args.length < 3 || args.length > 4) {
            System.err.println("usage: SegmentPicture BUNDLE PICTURE INSTRUCTION [OVERLAY.png]");
            System.exit(2);
        }
        try {
            BufferedImage picture = ImageIO.read(new File(args[1]));
            if (picture == null) {
                throw new IOException("Java reads PNG and JPEG, and " + args[1] + " is neither");
            }
            segment(args[0], picture, args[2]);
            if (args.length == 4 && !ImageIO.write(picture, "png", new File(args[3]))) {
                throw new IOException("Java writes no PNG of such a picture: " + picture);
            }
        } catch (IOException | Sam3iException error) {
            System.err.println(error.getMessage());
            System.exit(1);
        }
    }

    private static void segment(String bundle, BufferedImage picture, String instruction) {
        Image image = Image.of(rgba(picture), picture.getWidth(), picture.getHeight(), Image.Format.RGBA);
        try (Segmenter segmenter = new Segmenter(bundle);
                Scene scene = segmenter.encode(image);
                Result result = scene.segment(instruction)) {
            System.out.printf(Locale.ROOT, "%s: %d found%n", segmenter.info().model(), result.instances().size());
            int number = 0;
            for (Instance found : result.instances()) {
                float[] box = found.box();
                System.out.printf(Locale.ROOT, "%.3f  box %.1f %.1f %.1f %.1f  %d px%n", found.score(), box[0], box[1],
                        box[2], box[3], found.mask().area());
                tint(picture, found.bitmap(), COLOURS[number++ % COLOURS.length]);
            }
        }
    }

    private static byte[] rgba(BufferedImage picture) {
        int width = picture.getWidth();
        int[] pixels = picture.getRGB(0, 0, width, picture.getHeight(), null, 0, width);
        byte[] bytes = new byte[4 * pixels.length];
        for (int at = 0; at < bytes.length; at++) {
            bytes[at] = (byte) (pixels[at / 4] >> SHIFTS[at % 4]);
        }
        return bytes;
    }

    private static void tint(BufferedImage picture, byte[] mask, int colour) {
        int width = picture.getWidth();
        for (int at = 0; at < mask.length; at++) {
            if (mask[at] != 0) {
                int shown = picture.getRGB(at % width, at / width);
                int mixed = (shown >> 1 & 0x7f7f7f) + (colour >> 1 & 0x7f7f7f);
                picture.setRGB(at % width, at / width, 0xff000000 | mixed);
            }
        }
    }
}
