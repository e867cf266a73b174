import Foundation

/// What `sam3i.json` says of the exported model.
struct Configuration: Decodable {
    let name: String
    let precision: String
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

    static func load(from bundle: Bundle) throws -> Configuration {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(Configuration.self, from: try resource("sam3i", in: bundle))
    }

    static func resource(_ name: String, in bundle: Bundle) throws -> Data {
        guard let url = bundle.url(forResource: name, withExtension: "json") else {
            throw SAM3IError.missing("\(name).json in \(bundle.bundlePath)")
        }
        return try Data(contentsOf: url)
    }
}

public enum SAM3IError: Error, LocalizedError {
    case missing(String)
    case malformed(String)
    case instruction(String)

    public var errorDescription: String? {
        switch self {
        case .missing(let what): return "missing: \(what)"
        case .malformed(let what): return "malformed: \(what)"
        case .instruction(let what): return what
        }
    }
}
