package sam3i;

/** A call of the C library failed. The message is its line: what was found, what was wanted, what to do next. */
public final class Sam3iException extends RuntimeException {
    /** Why; the order is that of sam3i.h. */
    public enum Status {
        OK,
        INVALID_ARGUMENT,
        NOT_FINITE,
        CAPACITY,
        OUT_OF_MEMORY,
        BAD_BUNDLE,
        UNAVAILABLE,
        BAD_IMAGE,
        BAD_INSTRUCTION,
        INTERNAL
    }

    private static final long serialVersionUID = 1;
    private final Status status;

    Sam3iException(int status, byte[] line) {
        super(Native.text(line));
        this.status = Status.values()[status];
    }

    public Status status() {
        return status;
    }
}
