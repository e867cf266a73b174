package sam3i;

/** A picture, encoded once, to be asked often. */
public final class Scene implements AutoCloseable {
    private final Handle handle;

    Scene(long address) {
        handle = new Handle(address, "Scene", Native::closeScene);
    }

    /** Segments what the instruction describes; its level is told by its words. */
    public Result segment(String instruction) {
        return segment(Question.of(instruction));
    }

    /**
     * Answers a question.
     *
     * @throws Sam3iException the question is refused, the runtime failed, or the segmenter was closed.
     */
    public Result segment(Question question) {
        return handle.use(address -> new Result(Native.segment(
                address, Native.bytes(question.instruction), question.level.ordinal(), question.boxes,
                question.labels, question.threshold, question.suppress)));
    }

    @Override
    public void close() {
        handle.close();
    }
}
