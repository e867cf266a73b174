// Answers lines of JSON, a text each: with the ids of the tokenizer, how many were cut, and the level; or the error.
import Foundation

struct Answer: Encodable {
    var ids: [Int32] = []
    var cut = 0
    var level = ""
    var error = ""
}

let folder = URL(fileURLWithPath: CommandLine.arguments[1])
let configuration = try Configuration(json: Data(contentsOf: folder.appendingPathComponent("sam3i.json")))
let tokenizer = try Tokenizer(
    json: Data(contentsOf: folder.appendingPathComponent("tokenizer.json")), configuration: configuration)
while let line = readLine() {
    let text = try JSONDecoder().decode([String].self, from: Data(line.utf8))[0]
    var answer = Answer()
    do {
        (answer.ids, answer.cut) = try tokenizer.encode(text)
        answer.level = "\(try tokenizer.level(of: text))"
    } catch {
        answer.error = error.localizedDescription
    }
    print(String(decoding: try JSONEncoder().encode(answer), as: UTF8.self))
}
