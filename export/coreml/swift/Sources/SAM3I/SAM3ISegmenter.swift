import CoreGraphics
import CoreML
import CoreVideo
import Foundation
import ImageIO
import VideoToolbox
import Vision

/// Segments what a sentence describes.
///
///     let segmenter = try await SAM3ISegmenter(resourcesAt: Bundle.main.resourceURL!)
///     try await segmenter.warmup()
///     let response = try await segmenter.segment(image: image, instruction: "the red star left of the ring")
///
/// An actor: calls from many tasks are answered one after the other, between the steps of each.
public actor SAM3ISegmenter {
    private let configuration: Configuration
    private let tokenizer: Tokenizer
    private let encoder: MLModel
    private let detector: MLModel
    private let folder: URL
    private let options: MLModelConfiguration
    private var textEncoders: [SAM3ILevel: MLModel] = [:]

    /// - Parameters:
    ///   - resources: folder of the packages, compiled by Xcode (`.mlmodelc`) or not (`.mlpackage`).
    ///   - computeUnits: what Core ML may use.
    public init(resourcesAt resources: URL, computeUnits: MLComputeUnits = .all) async throws {
        let configuration = try Configuration(json: try Configuration.resource("sam3i", in: .module))
        let options = MLModelConfiguration()
        options.computeUnits = computeUnits
        self.configuration = configuration
        self.options = options
        folder = resources
        tokenizer = try Tokenizer(
            json: try Configuration.resource("tokenizer", in: .module), configuration: configuration)
        encoder = try await SAM3ISegmenter.load("image_encoder", configuration, resources, options)
        detector = try await SAM3ISegmenter.load("detector", configuration, resources, options)
    }

    /// What users of the model must know, such as what it was trained on; most have none.
    public nonisolated var notes: [String] { configuration.notes }

    /// Loads every text encoder and runs every model once, so that the first question is as fast as the next.
    public func warmup() async throws {
        let side = configuration.imageSize
        guard
            let context = CGContext(
                data: nil, width: side, height: side, bitsPerComponent: 8, bytesPerRow: 0,
                space: CGColorSpaceCreateDeviceRGB(), bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue),
            let grey = context.makeImage()
        else { throw SAM3IError.image("an image of \(side) x \(side) cannot be made: free memory") }
        let scene = try await encode(grey)
        for level in SAM3ILevel.allCases where configuration.models[level.graph] != nil {
            _ = try await segment(scene: scene, instruction: "thing", parameters: SAM3IParameters(level: level))
        }
    }

    /// Encodes an image.
    ///
    /// - Parameter orientation: how its pixels lie; boxes and masks are of the upright image.
    public func encode(_ image: CGImage, orientation: CGImagePropertyOrientation = .up) async throws -> SAM3IScene {
        guard let constraint = encoder.modelDescription.inputDescriptionsByName["image"]?.imageConstraint else {
            throw SAM3IError.malformed("the image encoder takes no pixel buffer: export it with an image input")
        }
        let fill: [MLFeatureValue.ImageOption: Any] = [
            .cropAndScale: VNImageCropAndScaleOption.scaleFill.rawValue
        ]
        let value = try MLFeatureValue(cgImage: image, orientation: orientation, constraint: constraint, options: fill)
        let input = try MLDictionaryFeatureProvider(dictionary: ["image": value])
        let features = try await encoder.prediction(from: input)
        switch orientation {
        case .left, .leftMirrored, .right, .rightMirrored:
            return SAM3IScene(features: features, width: image.height, height: image.width)
        default:
            return SAM3IScene(features: features, width: image.width, height: image.height)
        }
    }

    /// Encodes a frame of a camera, such as `ARFrame.capturedImage`; with the phone upright that one is `.right`.
    public func encode(
        _ pixelBuffer: CVPixelBuffer, orientation: CGImagePropertyOrientation
    ) async throws -> SAM3IScene {
        var image: CGImage?
        let status = VTCreateCGImageFromCVPixelBuffer(pixelBuffer, options: nil, imageOut: &image)
        guard let image else {
            let format = CVPixelBufferGetPixelFormatType(pixelBuffer)
            throw SAM3IError.image(
                "the pixel buffer of format \(format) cannot be read (\(status)): give 420v, 420f or BGRA")
        }
        return try await encode(image, orientation: orientation)
    }

    /// Encodes an image and segments what the instruction describes.
    public func segment(
        image: CGImage, instruction: String, orientation: CGImagePropertyOrientation = .up,
        parameters: SAM3IParameters = SAM3IParameters()
    ) async throws -> SAM3IResponse {
        let scene = try await encode(image, orientation: orientation)
        return try await segment(scene: scene, instruction: instruction, parameters: parameters)
    }

    /// Encodes a frame of a camera and segments what the instruction describes.
    public func segment(
        image: CVPixelBuffer, instruction: String, orientation: CGImagePropertyOrientation,
        parameters: SAM3IParameters = SAM3IParameters()
    ) async throws -> SAM3IResponse {
        let scene = try await encode(image, orientation: orientation)
        return try await segment(scene: scene, instruction: instruction, parameters: parameters)
    }

    /// Segments what the instruction describes in an encoded image.
    public func segment(
        scene: SAM3IScene, instruction: String, parameters: SAM3IParameters = SAM3IParameters()
    ) async throws -> SAM3IResponse {
        let (ids, cut) = try tokenizer.encode(instruction)
        let told = try tokenizer.level(of: instruction)
        let level = parameters.level ?? (configuration.models[told.graph] == nil ? .concept : told)
        let textInput = try MLDictionaryFeatureProvider(dictionary: [
            "input_ids": MLMultiArray(MLShapedArray<Int32>(scalars: ids, shape: [1, ids.count]))
        ])
        let textOutput = try await textEncoder(level).prediction(from: textInput)
        let text = try floats("text_features", of: textOutput)
        let token = try floats("cls_token", of: scene.features)
        let width = token.shape[2]
        let slots = configuration.boxSlots
        let length = ids.count + slots + 1
        let prompt = text.scalars + [Float](repeating: 0, count: slots * width) + token.scalars
        var mask = ids.map { $0 == Int32(configuration.padId) ? Int32(0) : Int32(1) }
        mask += [Int32](repeating: 0, count: slots) + [1]
        var inputs: [String: Any] = [
            "prompt": MLMultiArray(MLShapedArray<Float>(scalars: prompt, shape: [1, length, width])),
            "prompt_mask": MLMultiArray(MLShapedArray<Int32>(scalars: mask, shape: [1, length])),
            "level": MLMultiArray(MLShapedArray<Int32>(scalars: [level.rawValue], shape: [1])),
        ]
        for name in ["fpn_4x", "fpn_2x", "fpn_1x"] {
            inputs[name] = scene.features.featureValue(for: name)
        }
        let found = try await detector.prediction(from: try MLDictionaryFeatureProvider(dictionary: inputs))
        let scores = try floats("scores", of: found).scalars
        let segments = try segments(of: found, scores, scene, parameters.threshold ?? configuration.scoreThreshold)
        return SAM3IResponse(
            segments: segments, width: scene.width, height: scene.height, level: level,
            isTruncated: segments.count == scores.count, tokensCut: cut)
    }

    private func segments(
        of found: MLFeatureProvider, _ scores: [Float], _ scene: SAM3IScene, _ threshold: Float
    ) throws -> [SAM3ISegment] {
        let boxes = try floats("boxes", of: found).scalars
        let masks = try floats("mask_logits", of: found)
        let side = masks.shape[3]
        let logits = masks.scalars
        let (w, h) = (Float(scene.width), Float(scene.height))
        return scores.indices.filter { scores[$0] > threshold }.sorted { scores[$0] > scores[$1] }.map { i in
            let corner = (0..<4).map { min(max(boxes[4 * i + $0], 0), 1) * ($0 % 2 == 0 ? w : h) }
            return SAM3ISegment(
                score: scores[i],
                box: CGRect(
                    x: CGFloat(corner[0]), y: CGFloat(corner[1]),
                    width: CGFloat(corner[2] - corner[0]), height: CGFloat(corner[3] - corner[1])),
                maskLogits: logits[(i * side * side)..<((i + 1) * side * side)].map {
                    $0 - configuration.maskThreshold
                },
                maskSide: side)
        }
    }

    private func textEncoder(_ level: SAM3ILevel) async throws -> MLModel {
        if let loaded = textEncoders[level] { return loaded }
        let model = try await SAM3ISegmenter.load(level.graph, configuration, folder, options)
        textEncoders[level] = model
        return model
    }

    private func floats(_ name: String, of provider: MLFeatureProvider) throws -> MLShapedArray<Float> {
        guard let array = provider.featureValue(for: name)?.multiArrayValue else {
            throw SAM3IError.malformed("the model gives no array \(name): export the packages again")
        }
        return MLShapedArray<Float>(converting: array)
    }

    private static func load(
        _ graph: String, _ configuration: Configuration, _ folder: URL, _ options: MLModelConfiguration
    ) async throws -> MLModel {
        guard let name = configuration.models[graph] else {
            throw SAM3IError.missing(
                "\(configuration.name) was exported without \(graph): ask at another level, or export it with adapters")
        }
        let compiled = folder.appendingPathComponent("\(name).mlmodelc")
        if FileManager.default.fileExists(atPath: compiled.path) {
            return try await MLModel.load(contentsOf: compiled, configuration: options)
        }
        let package = folder.appendingPathComponent("\(name).mlpackage")
        guard FileManager.default.fileExists(atPath: package.path) else {
            throw SAM3IError.missing(
                "neither \(name).mlmodelc nor \(name).mlpackage is in \(folder.path): add the packages to the app")
        }
        let built = try await MLModel.compileModel(at: package)
        return try await MLModel.load(contentsOf: built, configuration: options)
    }
}
