package sam3i;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** One found object. */
public final class Instance {
    /** Where a mask is, made when it is asked for. */
    public static final class Mask {
        private final int[] bbox;
        private final long area;
        private final int[] counts;

        private Mask(int[] bbox, long area, int[] counts) {
            this.bbox = bbox;
            this.area = area;
            this.counts = counts;
        }

        /** x, y, width, height in pixels; zeros when the mask is empty. */
        public int[] bbox() {
            return bbox.clone();
        }

        /** Pixels. */
        public long area() {
            return area;
        }

        /** COCO run lengths: column by column, background first. */
        public int[] counts() {
            return counts.clone();
        }
    }

    /** A closed line along the edges of pixels, without its first point again. */
    public static final class Ring {
        private final boolean hole;
        private final float[] points;

        private Ring(boolean hole, float[] points) {
            this.hole = hole;
            this.points = points;
        }

        /** False: the outer ring of a part; true: a hole of the part before it. */
        public boolean hole() {
            return hole;
        }

        /** x, y, x, y, and so on, in pixels. */
        public float[] points() {
            return points.clone();
        }
    }

    private final Result result;
    private final int index;
    private final float[] values;

    Instance(Result result, int index, float[] values) {
        this.result = result;
        this.index = index;
        this.values = values;
    }

    /** 0 to 1. */
    public float score() {
        return values[0];
    }

    /** x0, y0, x1, y1 of the detector, pixels, within the picture. */
    public float[] box() {
        return Arrays.copyOfRange(values, 1, 5);
    }

    public Mask mask() {
        return result.handle().use(address -> {
            int[] bbox = new int[4];
            long[] area = new long[1];
            int[] counts = Native.mask(address, index, bbox, area);
            return new Mask(bbox, area[0], counts);
        });
    }

    /** Row by row, 1 inside and 0 elsewhere, of the upright picture. */
    public byte[] bitmap() {
        return bitmap((byte) 1);
    }

    /** Row by row, {@code inside} in the mask and 0 elsewhere. */
    public byte[] bitmap(byte inside) {
        return result.handle().use(address -> {
            byte[] bitmap = new byte[Math.multiplyExact(result.width(), result.height())];
            Native.bitmap(address, index, inside, bitmap);
            return bitmap;
        });
    }

    /** The outlines of the mask, parts from the top down, each with its holes after it. */
    public List<Ring> outline() {
        return result.handle().use(address -> {
            Object[] found = Native.polygons(address, index);
            int[] starts = (int[]) found[0];
            byte[] hole = (byte[]) found[1];
            float[] points = (float[]) found[2];
            List<Ring> rings = new ArrayList<>();
            for (int ring = 0; ring < hole.length; ring++) {
                rings.add(new Ring(hole[ring] != 0, Arrays.copyOfRange(points, 2 * starts[ring], 2 * starts[ring + 1])));
            }
            return rings;
        });
    }
}
