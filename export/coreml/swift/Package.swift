// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "SAM3I",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [.library(name: "SAM3I", targets: ["SAM3I"])],
    targets: [
        .target(name: "SAM3I", resources: [.copy("Resources/sam3i.json"), .copy("Resources/tokenizer.json")])
    ]
)
