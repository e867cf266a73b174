// As CoreGraphics.swift, of VideoToolbox.
import CoreGraphics
import CoreVideo

public typealias OSStatus = Int32
public typealias CFDictionary = NSDictionary

public func VTCreateCGImageFromCVPixelBuffer(
    _ pixelBuffer: CVPixelBuffer, options: CFDictionary?, imageOut: UnsafeMutablePointer<CGImage?>
) -> OSStatus { fatalError() }
