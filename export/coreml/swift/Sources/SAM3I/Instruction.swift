import Foundation

/// An instruction as a user writes it, made what a tokenizer reads: sam3i_edge/pipeline/instruction.py.
///
/// Of that cleaning the repair of wrong encodings, of HTML entities, of ligatures and of wide letters is left out.
enum Instruction {
    static let mostCharacters = 10_000
    static let mostWords = 2_000

    /// One line, single blanks, lower case, straight quotes.
    static func cleaned(_ text: String) throws -> String {
        guard text.unicodeScalars.count <= mostCharacters else {
            throw SAM3IError.instruction(
                "the instruction has \(text.unicodeScalars.count) characters, at most \(mostCharacters) are allowed: "
                    + "describe the target in one sentence")
        }
        let straight = [("\u{2018}", "'"), ("\u{2019}", "'"), ("\u{201C}", "\""), ("\u{201D}", "\"")]
            .reduce(text) { $0.replacingOccurrences(of: $1.0, with: $1.1) }
        let words = parts(of: straight.precomposedStringWithCanonicalMapping)
        guard !words.isEmpty else {
            throw SAM3IError.instruction(
                "the instruction is empty: describe what to segment, as in 'the red star'")
        }
        guard words.count <= mostWords else {
            throw SAM3IError.instruction(
                "the instruction has \(words.count) words, at most \(mostWords) are allowed: "
                    + "describe the target in one sentence")
        }
        return words.joined(separator: " ").lowercased()
    }

    /// A cleaned text without the punctuation around its words, which models of this project's own tokenizer read.
    static func plain(_ text: String) throws -> String {
        var known = text
        while true {
            let once = try plainOnce(known)
            if once == known { return known }
            known = once
        }
    }

    private static let quotes = "\"\u{201C}\u{201D}\u{201E}\u{201F}\u{AB}\u{BB}"
    private static let dashes = "\u{2012}\u{2013}\u{2014}\u{2015}\u{2212}"
    private static let edge = CharacterSet(charactersIn: ",;:\u{2026}*_~-'\u{2022} ")
    private static let ends = CharacterSet(charactersIn: ".?!")

    private static func plainOnce(_ text: String) throws -> String {
        var words = try replace("[\u{2010}\u{2011}\u{AD}]", in: text, with: "-")
        words = try replace("[\u{2018}\u{2019}\u{201B}\u{2032}`]", in: words, with: "'")
        words = try replace(
            "[\(quotes)]|(?<![\\p{L}\\p{N}_])'|'(?![\\p{L}\\p{N}_])|[\(dashes)]|(?<!\\S)-+(?!\\S)", in: words,
            with: " ")
        words = parts(of: words).joined(separator: " ")
        let outer = edge.union(ends)
        let bare = words.trimmingCharacters(in: outer)
        if bare.isEmpty { return text }
        let tail = words.unicodeScalars.reversed().prefix { outer.contains($0) }.reversed()
        let end = tail.first { ends.contains($0) }.map { String(Character($0)) } ?? ""
        let whole = bare + end
        let bracketed = try NSRegularExpression(pattern: #"^[(\[{]([^()\[\]{}]*)[)\]}]([.?!]?)$"#)
        if let found = bracketed.firstMatch(in: whole, range: NSRange(whole.startIndex..., in: whole)),
            let inside = Range(found.range(at: 1), in: whole), let after = Range(found.range(at: 2), in: whole),
            !parts(of: String(whole[inside])).isEmpty
        {
            return String(whole[inside] + whole[after])
        }
        return try replace(#"\s+([,;:.?!])"#, in: bare, with: "$1") + end
    }

    /// What Unicode's blanks separate, also those that carry a combining mark; Foundation counts more as blanks.
    private static func parts(of text: String) -> [String] {
        text.unicodeScalars.split(whereSeparator: \.properties.isWhitespace).map(String.init)
    }

    private static func replace(_ pattern: String, in text: String, with template: String) throws -> String {
        try NSRegularExpression(pattern: pattern).stringByReplacingMatches(
            in: text, range: NSRange(text.startIndex..., in: text), withTemplate: template)
    }
}
