import Foundation

/// Byte-level BPE from a `tokenizer.json`: CLIP's kind, with "</w>" at the end of words, and GPT-2's.
struct Tokenizer {
    private let vocabulary: [String: Int]
    private let ranks: [Pair: Int]
    private let wordEnd: String
    private let prefixSpace: Bool
    private let pattern: NSRegularExpression
    private let configuration: Configuration
    /// Whether the model's tokenizer is this project's own, which reads plain text.
    private let isOwn: Bool

    private struct Pair: Hashable {
        let left: String
        let right: String
    }

    private static let wordPattern =
        #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#

    init(json: Data, configuration: Configuration) throws {
        guard let root = try JSONSerialization.jsonObject(with: json) as? [String: Any],
            let model = root["model"] as? [String: Any],
            let vocabulary = model["vocab"] as? [String: Int],
            let merges = model["merges"] as? [Any],
            let splitter = root["pre_tokenizer"] as? [String: Any]
        else {
            throw SAM3IError.malformed("tokenizer.json has no BPE model: export the Swift package again")
        }
        let added = root["added_tokens"] as? [[String: Any]] ?? []
        isOwn = added.contains {
            $0["id"] as? Int == configuration.startId && $0["content"] as? String == "<start>"
        }
        self.configuration = configuration
        self.vocabulary = vocabulary
        var ranks: [Pair: Int] = [:]
        for (rank, merge) in merges.enumerated() {
            let parts = merge as? [String] ?? (merge as? String)?.components(separatedBy: " ") ?? []
            guard parts.count == 2 else {
                throw SAM3IError.malformed("merge \(rank) of tokenizer.json has \(parts.count) parts, want 2")
            }
            ranks[Pair(left: parts[0], right: parts[1])] = rank
        }
        self.ranks = ranks
        wordEnd = model["end_of_word_suffix"] as? String ?? ""
        let steps = splitter["pretokenizers"] as? [[String: Any]] ?? [splitter]
        var expression = Tokenizer.wordPattern
        var prefixSpace = false
        for step in steps {
            if let split = (step["pattern"] as? [String: Any])?["Regex"] as? String {
                expression = split
            }
            if step["type"] as? String == "ByteLevel" {
                prefixSpace = step["add_prefix_space"] as? Bool ?? false
            }
        }
        self.prefixSpace = prefixSpace
        pattern = try NSRegularExpression(pattern: expression)
    }

    /// Start id, at most `contextLength - 2` tokens of the text, end id, padding; and how many tokens were dropped.
    func encode(_ text: String) throws -> (ids: [Int32], cut: Int) {
        var cleaned = try Instruction.cleaned(text)
        if isOwn { cleaned = try Instruction.plain(cleaned) }
        if prefixSpace, cleaned.first != " " { cleaned = " " + cleaned }
        var tokens: [Int] = []
        let whole = NSString(string: cleaned)  // whose parts may begin inside a Character, as at a combining mark
        for match in pattern.matches(in: cleaned, range: NSRange(location: 0, length: whole.length)) {
            tokens += bytePairs(of: whole.substring(with: match.range))
        }
        let kept = Array(tokens.prefix(configuration.contextLength - 2))
        var ids = [configuration.startId] + kept + [configuration.endId]
        ids += Array(repeating: configuration.padId, count: configuration.contextLength - ids.count)
        return (ids.map(Int32.init), tokens.count - kept.count)
    }

    /// The level of an instruction, by its words.
    func level(of text: String) throws -> SAM3ILevel {
        try configuration.levelRules.level(of: Instruction.cleaned(text))
    }

    private func bytePairs(of word: String) -> [Int] {
        var symbols = word.utf8.map { Tokenizer.byteSymbols[Int($0)] }
        if let last = symbols.popLast() { symbols.append(last + wordEnd) }
        while symbols.count > 1 {
            var best: (rank: Int, at: Int)?
            for i in 0..<(symbols.count - 1) {
                if let rank = ranks[Pair(left: symbols[i], right: symbols[i + 1])], rank < best?.rank ?? Int.max {
                    best = (rank, i)
                }
            }
            guard let found = best else { break }
            symbols.replaceSubrange(found.at...(found.at + 1), with: [symbols[found.at] + symbols[found.at + 1]])
        }
        return symbols.compactMap { vocabulary[$0] }
    }

    /// GPT-2's map of bytes to printable characters.
    private static let byteSymbols: [String] = {
        let printable = Array(33...126) + Array(161...172) + Array(174...255)
        var symbols = [String](repeating: "", count: 256)
        var next = 256
        for byte in 0..<256 {
            var scalar = byte
            if !printable.contains(byte) {
                scalar = next
                next += 1
            }
            symbols[byte] = Unicode.Scalar(UInt32(scalar)).map { String(Character($0)) } ?? ""
        }
        return symbols
    }()
}
