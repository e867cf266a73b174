package sam3i;

/** What is asked about a scene: an instruction, boxes, or both. Unchangeable: each method gives another one. */
public final class Question {
    final String instruction;
    final Level level;
    final double[] boxes;
    final int[] labels;
    final float threshold;
    final double suppress;

    private Question(
            String instruction, Level level, double[] boxes, int[] labels, float threshold, double suppress) {
        this.instruction = instruction;
        this.level = level;
        this.boxes = boxes;
        this.labels = labels;
        this.threshold = threshold;
        this.suppress = suppress;
    }

    /** Asks by words; null asks by boxes alone. */
    public static Question of(String instruction) {
        return new Question(instruction, Level.AUTO, null, null, -1, -1);
    }

    /** Says how the instruction speaks, in place of its words. */
    public Question level(Level value) {
        return new Question(instruction, value, boxes, labels, threshold, suppress);
    }

    /** Least score of an instance, 0 to 1, in place of the segmenter's. */
    public Question threshold(float value) {
        return new Question(instruction, level, boxes, labels, value, suppress);
    }

    /** Of instances whose masks overlap by more than this IoU, 0 to 1, only the best is kept. */
    public Question suppress(double value) {
        return new Question(instruction, level, boxes, labels, threshold, value);
    }

    /**
     * Shows examples.
     *
     * @param corners x0, y0, x1, y1 in pixels, for each box.
     * @param around a box each: true around what is meant, false around what is not; null: true throughout.
     */
    public Question boxes(double[][] corners, boolean[] around) {
        if (around != null && around.length != corners.length) {
            throw new IllegalArgumentException(corners.length + " boxes have " + around.length + " labels: give one each");
        }
        double[] flat = new double[4 * corners.length];
        int[] numbers = new int[corners.length];
        for (int box = 0; box < corners.length; box++) {
            if (corners[box].length != 4) {
                throw new IllegalArgumentException("box " + box + " has " + corners[box].length + " numbers, want x0, y0, x1, y1");
            }
            System.arraycopy(corners[box], 0, flat, 4 * box, 4);
            numbers[box] = around == null || around[box] ? 1 : 0;
        }
        return new Question(instruction, level, flat, numbers, threshold, suppress);
    }
}
