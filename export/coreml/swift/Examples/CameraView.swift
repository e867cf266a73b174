// An iOS screen that segments what the camera shows. Not built here: read with care. Copy it into an app that has this
// package, the .mlpackage folders, and NSCameraUsageDescription in its Info.plist.
import ARKit
import SAM3I
import SwiftUI

struct CameraView: View {
    @StateObject private var camera = Camera()

    var body: some View {
        ZStack(alignment: .bottom) {
            CameraImage(session: camera.session).ignoresSafeArea()
            if let found = camera.found {
                Image(decorative: found, scale: 1).resizable().scaledToFill().ignoresSafeArea().allowsHitTesting(false)
            }
            VStack {
                Text(camera.words).font(.callout).padding(8).background(.thinMaterial, in: Capsule())
                TextField("What to segment", text: $camera.instruction).textFieldStyle(.roundedBorder)
            }
            .padding()
        }
        .task { await camera.start() }
        .onDisappear { camera.session.pause() }
    }
}

/// What the camera sees, as ARKit draws it.
private struct CameraImage: UIViewRepresentable {
    let session: ARSession

    func makeUIView(context: Context) -> ARSCNView {
        let view = ARSCNView()
        view.session = session
        return view
    }

    func updateUIView(_ view: ARSCNView, context: Context) {}
}

@MainActor
private final class Camera: NSObject, ObservableObject, ARSessionDelegate {
    @Published var instruction = ""
    @Published private(set) var found: CGImage?
    @Published private(set) var words = "opening the model"
    let session = ARSession()
    private var segmenter: SAM3ISegmenter?
    private var isBusy = false

    func start() async {
        do {
            guard let resources = Bundle.main.resourceURL else { return }
            let opened = try await SAM3ISegmenter(resourcesAt: resources)
            try await opened.warmup()
            segmenter = opened
            words = opened.notes.first ?? "say what to segment"
            session.delegate = self
            session.run(ARWorldTrackingConfiguration())
        } catch {
            words = error.localizedDescription
        }
    }

    /// ARKit calls this in the main queue. While a frame is being answered others are dropped, so the next is the newest.
    nonisolated func session(_ session: ARSession, didUpdate frame: ARFrame) {
        let image = frame.capturedImage
        MainActor.assumeIsolated {
            guard !isBusy, let segmenter, !instruction.isEmpty else { return }
            isBusy = true
            Task {
                await answer(image, segmenter)
                isBusy = false
            }
        }
    }

    private func answer(_ image: CVPixelBuffer, _ segmenter: SAM3ISegmenter) async {
        do {
            // The sensor lies on its side when the phone stands upright.
            let response = try await segmenter.segment(image: image, instruction: instruction, orientation: .right)
            found = picture(of: response)
            words = "\(response.segments.count) found, \(response.level)"
        } catch {
            found = nil
            words = error.localizedDescription
        }
    }

    /// All masks in one colour, at a quarter of the frame's size.
    private func picture(of response: SAM3IResponse) -> CGImage? {
        let (width, height) = (response.width / 4, response.height / 4)
        var pixels = [UInt8](repeating: 0, count: 4 * width * height)
        for segment in response.segments {
            for (at, inside) in segment.mask(width: width, height: height).enumerated() where inside {
                pixels.replaceSubrange((4 * at)..<(4 * at + 4), with: [0, 64, 128, 128])  // alpha last, premultiplied
            }
        }
        guard let provider = CGDataProvider(data: Data(pixels) as CFData) else { return nil }
        return CGImage(
            width: width, height: height, bitsPerComponent: 8, bitsPerPixel: 32, bytesPerRow: 4 * width,
            space: CGColorSpaceCreateDeviceRGB(),
            bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.premultipliedLast.rawValue), provider: provider,
            decode: nil, shouldInterpolate: true, intent: .defaultIntent)
    }
}
