package sam3i;

import java.nio.ByteBuffer;

/**
 * A picture in memory. What a scene and its results say is in pixels of the upright picture.
 *
 * <pre>{@code
 * Image.of(pixels, 640, 480, Image.Format.RGBA)
 * Image.yuv420(y, u, v, 1280, 720, yStride, chromaStride, chromaPixelStride).rotated(90)
 * }</pre>
 */
public final class Image {
    /** What a pixel is; the order is that of sam3i.h. */
    public enum Format {
        RGB(3),
        BGR(3),
        /** Blended over white, as viewers show it. */
        RGBA(4),
        BGRA(4),
        GRAY8(1);

        final int bytes;

        Format(int bytes) {
            this.bytes = bytes;
        }
    }

    static final int YUV_420 = 5; // SAM3I_NV12, which the glue makes of any 4:2:0

    final int format;
    final ByteBuffer first;
    final ByteBuffer u;
    final ByteBuffer v;
    final int width;
    final int height;
    final long stride;
    final long chromaStride;
    final int chromaPixelStride;
    final int rotation;

    private Image(
            int format, ByteBuffer first, ByteBuffer u, ByteBuffer v, int width, int height, long stride,
            long chromaStride, int chromaPixelStride, int rotation) {
        this.format = format;
        this.first = first;
        this.u = u;
        this.v = v;
        this.width = width;
        this.height = height;
        this.stride = stride;
        this.chromaStride = chromaStride;
        this.chromaPixelStride = chromaPixelStride;
        this.rotation = rotation;
    }

    /** Rows that lie close together. A buffer that is not direct is copied. */
    public static Image of(ByteBuffer pixels, int width, int height, Format format) {
        return of(pixels, width, height, format, (long) width * format.bytes);
    }

    /** Rows of {@code stride} bytes. The buffer is read from its position on, when the picture is encoded. */
    public static Image of(ByteBuffer pixels, int width, int height, Format format, long stride) {
        sides(width, height);
        ByteBuffer seen = plane("pixels", pixels, height, stride, (long) width * format.bytes);
        return new Image(format.ordinal(), seen, null, null, width, height, stride, 0, 0, 0);
    }

    /** Rows that lie close together, copied. */
    public static Image of(byte[] pixels, int width, int height, Format format) {
        return of(ByteBuffer.wrap(pixels), width, height, format);
    }

    /**
     * Three planes, as YUV_420_888 of Android's cameras: BT.601, luma 16 to 235, both sides even.
     *
     * @param y from its position on, rows of {@code stride} bytes.
     * @param u, v of half the sides: rows of {@code chromaStride} bytes, values {@code chromaPixelStride} apart.
     */
    public static Image yuv420(
            ByteBuffer y, ByteBuffer u, ByteBuffer v, int width, int height, long stride, long chromaStride,
            int chromaPixelStride) {
        sides(width, height);
        if (width % 2 != 0 || height % 2 != 0) {
            throw new IllegalArgumentException("4:2:0 has even sides, not " + width + " x " + height);
        }
        if (chromaPixelStride < 1) {
            throw new IllegalArgumentException("chroma values lie 1 byte apart or more, not " + chromaPixelStride);
        }
        long row = (long) (width / 2 - 1) * chromaPixelStride + 1;
        return new Image(
                YUV_420, plane("y", y, height, stride, width), plane("u", u, height / 2, chromaStride, row),
                plane("v", v, height / 2, chromaStride, row), width, height, stride, chromaStride,
                chromaPixelStride, 0);
    }

    /** The same picture, which stands upright when it is turned clockwise by 0, 90, 180 or 270 degrees. */
    public Image rotated(int degrees) {
        return new Image(
                format, first, u, v, width, height, stride, chromaStride, chromaPixelStride, degrees);
    }

    private static void sides(int width, int height) {
        if (width < 1 || height < 1) {
            throw new IllegalArgumentException("a picture has sides of 1 pixel or more, not " + width + " x " + height);
        }
    }

    /** What C reads must be there: it only gets an address. */
    private static ByteBuffer plane(String name, ByteBuffer given, int rows, long stride, long row) {
        long wanted = (rows - 1) * stride + row;
        if (stride < row || stride > Integer.MAX_VALUE || given.remaining() < wanted) {
            throw new IllegalArgumentException(
                    name + " has " + given.remaining() + " bytes and rows of " + stride + ", want " + wanted
                            + " bytes: " + rows + " rows of at least " + row);
        }
        ByteBuffer seen = given.slice();
        // The glue asks for the address, which does not move with the position.
        return seen.isDirect() ? seen : ByteBuffer.allocateDirect(seen.remaining()).put(seen);
    }
}
