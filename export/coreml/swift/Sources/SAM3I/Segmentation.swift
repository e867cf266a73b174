import CoreGraphics
import CoreML
import Foundation

/// One found object.
public struct SAM3ISegment: Sendable {
    /// 0 to 1.
    public let score: Float
    /// In pixels of the upright image, origin at its top left.
    public let box: CGRect
    /// Row by row, `maskSide` x `maskSide`, above 0 inside.
    public let maskLogits: [Float]
    public let maskSide: Int

    /// The mask at the size of an image, row by row: logits resized bilinearly (half-pixel centres), then cut at 0.
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

/// The answer to one instruction.
public struct SAM3IResponse: Sendable {
    /// Best first; none is a normal answer.
    public let segments: [SAM3ISegment]
    /// Of the upright image, pixels.
    public let width: Int
    public let height: Int
    /// At which it was answered.
    public let level: SAM3ILevel
    /// Whether all of the model's candidates passed, so that there may be more.
    public let isTruncated: Bool
    /// Tokens dropped from the end of a too long instruction.
    public let tokensCut: Int
}

/// How an instruction is answered.
public struct SAM3IParameters: Sendable {
    /// Nil: by the words of the instruction.
    public var level: SAM3ILevel?
    /// Least score, 0 to 1; nil: the model's own.
    public var threshold: Float?

    public init(level: SAM3ILevel? = nil, threshold: Float? = nil) {
        self.level = level
        self.threshold = threshold
    }
}

/// An image encoded once, to be asked often.
public struct SAM3IScene: @unchecked Sendable {
    let features: MLFeatureProvider
    /// Of the upright image, pixels.
    public let width: Int
    public let height: Int
}
