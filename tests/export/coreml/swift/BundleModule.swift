// What SwiftPM makes of a target with resources.
import Foundation

extension Bundle {
    static var module: Bundle { fatalError() }
}
