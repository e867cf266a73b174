import CoreGraphics
import CoreML
import Foundation
import Vision

/// How an instruction speaks; the model must be told.
public enum SAM3ILevel: Int32, CaseIterable {
    /// A noun phrase, every instance meant: "star".
    case concept
    /// It names its target and narrows it: "the red star left of the ring".
    case simple
    /// It does not name its target: "the one with a hole".
    case complex

    var graph: String {
        switch self {
        case .concept: return "text_encoder.concept"
        case .simple: return "text_encoder.simple"
        case .complex: return "text_encoder.complex"
        }
    }
}

/// One found object.
public struct SAM3IInstance {
    /// 0 to 1.
    public let score: Float
    /// In pixels of the image, origin at its top left.
    public let box: CGRect
    /// Row by row, `maskSide` x `maskSide`, above 0 inside.
    public let maskLogits: [Float]
    public let maskSide: Int

    /// The mask at the size of an image: logits resized bilinearly (half-pixel centres), then cut at 0.
    public func mask(width: Int, height: Int) -> [Bool] {
        func taps(_ pixels: Int) -> [(first: Int, second: Int, weight: Float)] {
            (0..<pixels).map { pixel in
                let numerator = max((2 * pixel + 1) * maskSide - pixels, 0)
                let first = numerator / (2 * pixels)
                let weight = Double(numerator % (2 * pixels)) / Double(2 * pixels)
                return (first, min(first + 1, maskSide - 1), Float(weight))
            }
        }
        let columns = taps(width)
        var inside = [Bool](repeating: false, count: width * height)
        for (y, row) in taps(height).enumerated() {
            let upper = row.first * maskSide
            let lower = row.second * maskSide
            for (x, column) in columns.enumerated() {
                let above = maskLogits[upper + column.first] * (1 - column.weight)
                    + maskLogits[upper + column.second] * column.weight
                let below = maskLogits[lower + column.first] * (1 - column.weight)
                    + maskLogits[lower + column.second] * column.weight
                inside[y * width + x] = above * (1 - row.weight) + below * row.weight > 0
            }
        }
        return inside
    }
}

/// An image encoded once, to be asked often.
public struct SAM3IScene: @unchecked Sendable {
    let features: MLFeatureProvider
    public let width: Int
    public let height: Int
}

/// Segments what a sentence describes.
///
///     let segmenter = try await SAM3ISegmenter(models: Bundle.main.resourceURL!)
///     try await segmenter.prewarm()
///     let found = try await segmenter.segment(image: image, instruction: "the red star left of the ring")
public actor SAM3ISegmenter {
    private let configuration: Configuration
    private let tokenizer: Tokenizer
    private let encoder: MLModel
    private let detector: MLModel
    private let folder: URL
    private let options: MLModelConfiguration
    private var textEncoders: [SAM3ILevel: MLModel] = [:]

    /// - Parameters:
    ///   - models: folder of the packages, compiled by Xcode (`.mlmodelc`) or not (`.mlpackage`).
    ///   - computeUnits: what Core ML may use.
    public init(models: URL, computeUnits: MLComputeUnits = .all) async throws {
        let configuration = try Configuration.load(from: .module)
        let options = MLModelConfiguration()
        options.computeUnits = computeUnits
        self.configuration = configuration
        self.options = options
        folder = models
        tokenizer = try Tokenizer(
            json: try Configuration.resource("tokenizer", in: .module), configuration: configuration)
        encoder = try await SAM3ISegmenter.load("image_encoder", configuration, models, options)
        detector = try await SAM3ISegmenter.load("detector", configuration, models, options)
    }

    /// Loads every text encoder and runs every model once, so that the first question is as fast as the next.
    public func prewarm() async throws {
        let side = configuration.imageSize
        guard
            let context = CGContext(
                data: nil, width: side, height: side, bitsPerComponent: 8, bytesPerRow: 0,
                space: CGColorSpaceCreateDeviceRGB(), bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue),
            let grey = context.makeImage()
        else { throw SAM3IError.malformed("cannot make an image of \(side) x \(side)") }
        let scene = try await encode(grey)
        for level in SAM3ILevel.allCases where configuration.models[level.graph] != nil {
            _ = try await segment(scene: scene, instruction: "thing", level: level)
        }
    }

    /// Encodes an image.
    public func encode(_ image: CGImage) async throws -> SAM3IScene {
        guard let constraint = encoder.modelDescription.inputDescriptionsByName["image"]?.imageConstraint else {
            throw SAM3IError.malformed("the image encoder takes no pixel buffer: export it with an image input")
        }
        let fill: [MLFeatureValue.ImageOption: Any] = [
            .cropAndScale: VNImageCropAndScaleOption.scaleFill.rawValue
        ]
        let value = try MLFeatureValue(cgImage: image, constraint: constraint, options: fill)
        let input = try MLDictionaryFeatureProvider(dictionary: ["image": value])
        let features = try await encoder.prediction(from: input)
        return SAM3IScene(features: features, width: image.width, height: image.height)
    }

    /// Encodes an image and segments what the instruction describes.
    public func segment(
        image: CGImage, instruction: String, level: SAM3ILevel = .simple, threshold: Float? = nil
    ) async throws -> [SAM3IInstance] {
        try await segment(
            scene: try await encode(image), instruction: instruction, level: level, threshold: threshold)
    }

    /// Segments what the instruction describes in an encoded image, best first.
    ///
    /// - Parameter threshold: least score; nil for the model's own.
    public func segment(
        scene: SAM3IScene, instruction: String, level: SAM3ILevel = .simple, threshold: Float? = nil
    ) async throws -> [SAM3IInstance] {
        let ids = try tokenizer.encode(instruction)
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
        return try instances(of: found, scene, threshold ?? configuration.scoreThreshold)
    }

    private func instances(
        of found: MLFeatureProvider, _ scene: SAM3IScene, _ threshold: Float
    ) throws -> [SAM3IInstance] {
        let scores = try floats("scores", of: found).scalars
        let boxes = try floats("boxes", of: found).scalars
        let masks = try floats("mask_logits", of: found)
        let side = masks.shape[3]
        let logits = masks.scalars
        let (w, h) = (Float(scene.width), Float(scene.height))
        return scores.indices.filter { scores[$0] > threshold }.sorted { scores[$0] > scores[$1] }.map { i in
            let corner = (0..<4).map { min(max(boxes[4 * i + $0], 0), 1) * ($0 % 2 == 0 ? w : h) }
            return SAM3IInstance(
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
            throw SAM3IError.malformed("the model gives no array \(name)")
        }
        return MLShapedArray<Float>(converting: array)
    }

    private static func load(
        _ graph: String, _ configuration: Configuration, _ folder: URL, _ options: MLModelConfiguration
    ) async throws -> MLModel {
        guard let name = configuration.models[graph] else {
            throw SAM3IError.missing("\(configuration.name) was exported without \(graph)")
        }
        let compiled = folder.appendingPathComponent("\(name).mlmodelc")
        if FileManager.default.fileExists(atPath: compiled.path) {
            return try await MLModel.load(contentsOf: compiled, configuration: options)
        }
        let package = folder.appendingPathComponent("\(name).mlpackage")
        guard FileManager.default.fileExists(atPath: package.path) else {
            throw SAM3IError.missing("\(name).mlmodelc or \(name).mlpackage in \(folder.path)")
        }
        let built = try await MLModel.compileModel(at: package)
        return try await MLModel.load(contentsOf: built, configuration: options)
    }
}
