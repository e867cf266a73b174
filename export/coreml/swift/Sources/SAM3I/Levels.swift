import Foundation

/// How an instruction speaks; the model must be told.
public enum SAM3ILevel: Int32, CaseIterable, Sendable {
    /// A noun phrase, every instance meant: "star".
    case concept
    /// It names its target and narrows it: "the red star left of the ring".
    case simple
    /// It does not name its target: "the one with a hole".
    case complex

    var graph: String { "text_encoder.\(self)" }
}

/// The rules of sam3i_edge/levels.py, whose words and expressions `sam3i.json` holds.
struct LevelRules: Decodable {
    let articles: Set<String>
    let quantifiers: Set<String>
    let ordinals: Set<String>
    let positions: Set<String>
    let prepositions: Set<String>
    let clauses: Set<String>
    let relationVerbs: Set<String>
    let narrowing: Set<String>
    let weakPlaceholders: Set<String>
    let placeholders: Set<String>
    let classWords: Set<String>
    let visible: Set<String>
    let questions: Set<String>
    let notSuperlative: Set<String>
    let seenClause: String
    let request: String
    let purpose: String
    let maxConceptWords: Int

    /// The level of an instruction; `concept` for a blank one.
    func level(of instruction: String) throws -> SAM3ILevel {
        let text = instruction.lowercased().replacingOccurrences(of: "\u{2019}", with: "'")
        // Python's \w has no combining marks.
        var words = Array(try found(#"[\p{L}\p{N}_]+(?:[-'][\p{L}\p{N}_]+)*"#, in: text).prefix(64))
        let asked = try found(request, in: words.joined(separator: " "), options: .anchored).first
        if let asked { words.removeFirst(asked.split(separator: " ").count) }
        if let first = words.first, first == "a" || first == "an" { words.removeFirst() }
        guard let first = words.first else { return .concept }
        if questions.contains(first) || words.contains("what") || first == "where" { return .complex }
        if first == "which" { return try namesNothing(Array(words.dropFirst())) ? .complex : .simple }
        if try namesNothing(words) { return .complex }
        return asked != nil || narrows(words) ? .simple : .concept
    }

    private func isSuperlative(_ word: String) -> Bool {
        (word.hasSuffix("est") || word.hasSuffix("most")) && word.count > 4 && word != "almost"
            && !notSuperlative.contains(word)
    }

    /// Whether the word is no longer part of the phrase that names the target.
    private func endsHead(_ words: [String], _ index: Int) -> Bool {
        let word = words[index]
        let before = index > 0 ? words[index - 1] : nil
        let after = index + 1 < words.count ? words[index + 1] : nil
        if after == "than" { return true }
        if let before, placeholders.contains(before), word.hasSuffix("ed") { return true }
        switch word {
        case "left", "right": return after == "of"
        case "that": return before != nil
        case "next": return before != nil && after == "to"
        case "the":
            guard let before else { return false }
            return before == "one" || !quantifiers.contains(before)
        case "nearest", "closest": return after == nil || after == "to" || after == "the"
        default:
            return prepositions.contains(word) || clauses.contains(word) || relationVerbs.contains(word)
        }
    }

    private func namesNothing(_ words: [String]) throws -> Bool {
        let end = words.indices.first { endsHead(words, $0) } ?? words.count
        let rest = Array(words[end...])
        let content = words[..<end].filter { word in
            !articles.contains(word) && !ordinals.contains(word) && !positions.contains(word)
                && (word == "one" || !quantifiers.contains(word)) && !isSuperlative(word)
        }
        guard let first = content.first, let last = content.last, content != ["one"] else {
            guard rest.first == "of", rest.count > 1 else { return true }
            return try namesNothing(Array(rest.dropFirst()))
        }
        if weakPlaceholders.contains(last) {
            let isPiece = last.hasPrefix("piec") || last.hasPrefix("pair")
            let ofNoun = rest.first == "of" && rest.count > 1 && !articles.contains(rest[1])
            if Set(content).subtracting(visible).count > 1 || (isPiece && ofNoun) { return false }
        }
        if content.contains(where: { $0.hasSuffix("-shaped") }) { return false }
        let after = rest.joined(separator: " ")
        if last != "one", last != "ones", !visible.isDisjoint(with: content),
            try !found(seenClause, in: after, options: .anchored).isEmpty
        {
            return false
        }
        if placeholders.contains(last) { return true }
        if first != "one", placeholders.contains(first), !weakPlaceholders.contains(first) { return true }
        return try classWords.contains(last) && !found(purpose, in: after).isEmpty
    }

    private func narrows(_ words: [String]) -> Bool {
        words.count > maxConceptWords || articles.contains(words[0]) || words.dropFirst().contains("the")
            || words.contains { narrowing.contains($0) || isSuperlative($0) }
            || words.dropFirst().dropLast().contains { relationVerbs.contains($0) }
    }

    /// What an expression finds in a text, in order.
    private func found(
        _ pattern: String, in text: String, options: NSRegularExpression.MatchingOptions = []
    ) throws -> [String] {
        let whole = NSString(string: text)
        let range = NSRange(location: 0, length: whole.length)
        return try NSRegularExpression(pattern: pattern).matches(in: text, options: options, range: range)
            .map { whole.substring(with: $0.range) }
    }
}
