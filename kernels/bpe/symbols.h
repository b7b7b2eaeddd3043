// Symbols and pieces (pre-tokens), found one by one: the definition that pretokenizer.h speeds up, and that
// hipgpt/data/tokenizer/pretokenize.py gives in Python. A text is any bytes, valid UTF-8 or not.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include "bpe/limits.h"

namespace bpe {

enum Class : uint8_t { OTHER, LETTER, NUMBER, SPACE };

// A pre-tokenization pattern: of GPT-2's kind or of cl100k's. A piece has at most `most_digits` numbers. In cl100k's kind,
// and in GPT-2's where that is 1, a number takes no blank before it, and white space before it is one piece.
struct Pattern {
    bool cl100k;
    size_t most_digits;

    bool operator==(const Pattern& other) const { return cl100k == other.cl100k && most_digits == other.most_digits; }
};
constexpr Pattern PATTERNS[] = {{false, SIZE_MAX}, {true, 3}, {true, 1}, {false, 1}};  // as in pretokenize.py

constexpr std::array<uint8_t, 128> ascii_classes() {
    std::array<uint8_t, 128> table{};
    for (int c = 0; c < 128; ++c) {
        const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        const bool space = c == ' ' || (c >= '\t' && c <= '\r');
        table[c] = letter ? LETTER : c >= '0' && c <= '9' ? NUMBER : space ? SPACE : OTHER;
    }
    return table;
}
constexpr std::array<uint8_t, 128> ASCII = ascii_classes();

struct Symbol {
    uint8_t kind;
    uint8_t bytes;
};

// The symbol that begins at text[at]: one character, or one byte that no well-formed UTF-8 sequence begins with.
inline Symbol symbol_at(std::string_view text, size_t at, const uint8_t* classes) {
    constexpr uint32_t SMALLEST[] = {0, 0, 0x80, 0x800,
                                     0x10000};  // code point of a sequence of so many bytes; a smaller one is overlong
    const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<unsigned char>(text[at + i])); };
    const uint32_t lead = byte(0);
    if (lead < 0x80) return {ASCII[lead], 1};
    const uint8_t bytes = lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF8 ? 4 : 1;
    if (bytes == 1 || bytes > text.size() - at) return {OTHER, 1};
    uint32_t code_point = lead & (0xFFu >> (bytes + 1));
    for (uint8_t i = 1; i < bytes; ++i) {
        if ((byte(i) & 0xC0) != 0x80) return {OTHER, 1};
        code_point = code_point << 6 | (byte(i) & 0x3F);
    }
    // Overlong, a surrogate or above U+10FFFF: not a character, so each of its bytes is a symbol.
    if (code_point < SMALLEST[bytes] || (code_point >> 11) == 0x1B || code_point > 0x10FFFF) return {OTHER, 1};
    return {code_point < CLASS_TABLE_SIZE ? classes[code_point] : static_cast<uint8_t>(OTHER), bytes};
}

inline bool is_newline(char c) { return c == '\n' || c == '\r'; }

// The bytes of the contraction at `start` ('s 't 're 've 'm 'll 'd), 0 if there is none. cl100k ignores case, and then
// U+017F, the long s, is an s.
inline size_t contraction_size(std::string_view text, size_t start, const Pattern& pattern) {
    const auto at = [&](size_t i) {
        const char c = start + i < text.size() ? text[start + i] : '\0';
        return pattern.cl100k && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    };
    const char first = at(1), second = at(2);
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
    if ((second == 'e' && (first == 'r' || first == 'v')) || (first == 'l' && second == 'l')) return 3;
    return pattern.cl100k && first == '\xC5' && second == '\xBF' ? 3 : 0;
}

class SymbolReader {
   public:
    SymbolReader(std::string_view text, const uint8_t* classes) : text_(text), classes_(classes) {}

    Symbol at(size_t offset) const { return symbol_at(text_, offset, classes_); }
    bool is(size_t offset, uint8_t kind) const { return offset < text_.size() && at(offset).kind == kind; }

    size_t run_end(size_t offset, uint8_t kind, size_t most = SIZE_MAX) const {
        for (Symbol symbol; most-- > 0 && offset < text_.size() && (symbol = at(offset)).kind == kind;)
            offset += symbol.bytes;
        return offset;
    }

    // The end of `\s+(?!\S)|\s+` in white space from start to end: all of it, or without its last symbol if text
    // follows.
    size_t space_end(size_t start, size_t end) const {
        if (end == text_.size()) return end;
        size_t last = end - 1;
        while (last > start && at(last).kind != SPACE)
            --last;  // to its first byte; a byte inside a symbol is not white space
        return last > start ? last : end;
    }

   private:
    std::string_view text_;
    const uint8_t* classes_;
};

inline size_t gpt2_piece_end(std::string_view text, size_t start, const uint8_t* classes, const Pattern& pattern) {
    const SymbolReader symbols(text, classes);
    if (text[start] == '\'')
        if (const size_t size = contraction_size(text, start, pattern)) return start + size;
    const bool digits_alone = pattern.most_digits == 1;
    if (digits_alone && symbols.is(start, NUMBER)) return symbols.run_end(start, NUMBER, 1);
    const size_t after_space = start + (text[start] == ' ' && start + 1 < text.size());
    const uint8_t kind = symbols.at(after_space).kind;
    if (kind != SPACE && !(digits_alone && kind == NUMBER)) return symbols.run_end(after_space, kind);
    const size_t end = symbols.run_end(start, SPACE);
    return digits_alone && symbols.is(end, NUMBER) ? end : symbols.space_end(start, end);
}

inline size_t cl100k_piece_end(std::string_view text, size_t start, const uint8_t* classes, const Pattern& pattern) {
    const SymbolReader symbols(text, classes);
    if (text[start] == '\'')
        if (const size_t size = contraction_size(text, start, pattern)) return start + size;
    const Symbol first = symbols.at(start);
    if (first.kind == LETTER) return symbols.run_end(start, LETTER);
    if (first.kind == NUMBER) return symbols.run_end(start, NUMBER, pattern.most_digits);
    if (!is_newline(text[start]) && symbols.is(start + first.bytes, LETTER))
        return symbols.run_end(start + first.bytes, LETTER);
    const size_t after_space = start + (text[start] == ' ');
    if (symbols.is(after_space, OTHER)) {
        size_t end = symbols.run_end(after_space, OTHER);
        while (end < text.size() && is_newline(text[end])) ++end;
        return end;
    }
    const size_t end = symbols.run_end(start, SPACE);
    for (size_t newline = end; newline > start; --newline)
        if (is_newline(text[newline - 1])) return newline;
    return symbols.space_end(start, end);
}

inline size_t piece_end(std::string_view text, size_t start, const uint8_t* classes, const Pattern& pattern) {
    return pattern.cl100k ? cl100k_piece_end(text, start, classes, pattern)
                          : gpt2_piece_end(text, start, classes, pattern);
}

}  // namespace bpe
