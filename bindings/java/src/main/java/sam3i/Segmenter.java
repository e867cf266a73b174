package sam3i;

/**
 * Segments what a sentence describes.
 *
 * <pre>{@code
 * try (Segmenter segmenter = new Segmenter(folder);
 *         Scene scene = segmenter.encode(Image.of(pixels, 640, 480, Image.Format.RGBA));
 *         Result result = scene.segment("the red star left of the ring")) {
 *     for (Instance found : result.instances()) show(found.score(), found.box(), found.bitmap());
 * }
 * }</pre>
 *
 * Any number of threads may use a segmenter, its scenes and its results at once; each graph runs one question at a
 * time. All three hold memory outside the virtual machine: close them, in any order.
 */
public final class Segmenter implements AutoCloseable {
    /** How a bundle is opened; what is left as it is, is chosen by the library. */
    public static final class Options {
        private String device;
        private String precision;
        private String runtime;
        private String engineCache;
        private int threads;
        private float threshold = -1;
        private int instructionCache = -1;

        /** "cpu", or with ONNX Runtime "cuda" and "jetson", with OpenVINO "intel-gpu" and "intel-npu". */
        public Options device(String name) {
            device = name;
            return this;
        }

        /** "fp32", "int8", and so on. */
        public Options precision(String name) {
            precision = name;
            return this;
        }

        /** "onnxruntime" or "openvino", where the library was built with it. */
        public Options runtime(String name) {
            runtime = name;
            return this;
        }

        /** The folder of TensorRT's engines, on a Jetson. */
        public Options engineCache(String folder) {
            engineCache = folder;
            return this;
        }

        /** Of one operator, 1 to 1,024; 0: one for each core that this process may use. */
        public Options threads(int count) {
            threads = count;
            return this;
        }

        /** Least score of an instance, 0 to 1, in place of the bundle's. */
        public Options threshold(float score) {
            threshold = score;
            return this;
        }

        /** How many encoded instructions are kept, 256 where it is not said. */
        public Options instructionCache(int count) {
            instructionCache = count;
            return this;
        }
    }

    private final Handle handle;

    /** Opens the bundle in a folder. */
    public Segmenter(String bundle) {
        this(bundle, new Options());
    }

    /**
     * Opens the bundle in a folder: its files are compared by size and sha256 first.
     *
     * @throws Sam3iException there is no bundle, it is damaged, or a runtime or device is not to be had.
     */
    public Segmenter(String bundle, Options options) {
        if (bundle == null) {
            throw new IllegalArgumentException("name the folder of a bundle, not null");
        }
        long address = Native.open(
                Native.bytes(bundle), Native.bytes(options.device), Native.bytes(options.precision),
                Native.bytes(options.runtime), Native.bytes(options.engineCache), options.threads,
                options.threshold, options.instructionCache);
        handle = new Handle(address, "Segmenter", Native::close);
    }

    /** What runs. */
    public Info info() {
        return handle.use(Info::new);
    }

    /**
     * Encodes a picture of at most 64 million pixels once, to be asked often.
     *
     * @throws Sam3iException the picture is refused, or the runtime failed.
     */
    public Scene encode(Image image) {
        return handle.use(address -> new Scene(Native.encode(
                address, image.format, image.first, image.u, image.v, image.width, image.height, image.stride,
                image.chromaStride, image.chromaPixelStride, image.rotation)));
    }

    /** Encodes a picture and answers one question about it. */
    public Result segment(Image image, String instruction) {
        try (Scene scene = encode(image)) {
            return scene.segment(instruction);
        }
    }

    /** Frees the graphs when their last run has ended. Scenes can then no longer be asked; results stay. */
    @Override
    public void close() {
        handle.close();
    }
}
