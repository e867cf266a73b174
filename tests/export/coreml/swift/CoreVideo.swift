// As CoreGraphics.swift, of CoreVideo.
public final class CVBuffer {}
public typealias CVPixelBuffer = CVBuffer
public typealias OSType = UInt32

public func CVPixelBufferGetPixelFormatType(_ pixelBuffer: CVPixelBuffer) -> OSType { fatalError() }
