// What the Swift package uses of CoreGraphics, by Apple's documentation, to check types where there is none.
@_exported import Foundation

public final class CGImage: @unchecked Sendable {
    public var width: Int { fatalError() }
    public var height: Int { fatalError() }
}

public final class CGColorSpace: @unchecked Sendable {}

public func CGColorSpaceCreateDeviceRGB() -> CGColorSpace { fatalError() }

public enum CGImageAlphaInfo: UInt32 {
    case noneSkipLast = 5
}

public final class CGContext {
    public init?(
        data: UnsafeMutableRawPointer?, width: Int, height: Int, bitsPerComponent: Int, bytesPerRow: Int,
        space: CGColorSpace, bitmapInfo: UInt32
    ) { fatalError() }
    public func makeImage() -> CGImage? { fatalError() }
}
