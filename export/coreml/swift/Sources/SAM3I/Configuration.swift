import Foundation

/// What `sam3i.json` says of the exported model.
struct Configuration: Decodable {
    let name: String
    let precision: String
    /// What users of the model must know, such as what it was trained on.
    let notes: [String]
    /// Side of the encoder's square image, pixels.
    let imageSize: Int
    let contextLength: Int
    let startId: Int
    let endId: Int
    let padId: Int
    /// Box slots of the prompt between the text and the image's token.
    let boxSlots: Int
    /// Least score of an instance, 0 to 1.
    let scoreThreshold: Float
    /// Least logit of a mask pixel.
    let maskThreshold: Float
    /// Graph name to the model's name without extension.
    let models: [String: String]
    /// The words that tell the level of an instruction.
    let levelRules: LevelRules

    init(json: Data) throws {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        do {
            self = try decoder.decode(Configuration.self, from: json)
        } catch let error as DecodingError {
            throw SAM3IError.malformed("sam3i.json: \(error): export the Swift package again")
        }
    }

    static func resource(_ name: String, in bundle: Bundle) throws -> Data {
        guard let url = bundle.url(forResource: name, withExtension: "json") else {
            throw SAM3IError.missing("\(name).json is not in \(bundle.bundlePath): add it to the target's resources")
        }
        return try Data(contentsOf: url)
    }
}

/// What went wrong; `errorDescription` says what was found, what was wanted and what to do.
public enum SAM3IError: Error, LocalizedError {
    /// A file or a graph is not there.
    case missing(String)
    /// A file or a model is not what this package was exported with.
    case malformed(String)
    /// The instruction is refused.
    case instruction(String)
    /// The image is refused.
    case image(String)

    public var errorDescription: String? {
        switch self {
        case .missing(let what), .malformed(let what), .instruction(let what), .image(let what): return what
        }
    }
}
