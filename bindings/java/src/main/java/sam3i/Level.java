package sam3i;

/** How an instruction speaks; the order is that of sam3i.h. */
public enum Level {
    /** A noun phrase, every instance meant: "star". */
    CONCEPT,
    /** It names its target and narrows it: "the red star left of the ring". */
    SIMPLE,
    /** It does not name its target: "the one with a hole". */
    COMPLEX,
    /** By the words of the instruction. */
    AUTO
}
