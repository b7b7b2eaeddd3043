// The pieces (pre-tokens) of a text, window by window. The classes of 64 bytes are bits of a word, and shifts of these
// words find where pieces begin. symbols.h defines the pieces; the rules below follow from it, for a byte and the bytes
// before and after it.
#pragma once
#include <algorithm>
#include <cstring>
#include <stdexcept>
#include "bpe/bits.h"
#include "bpe/simd_block.h"
#include "bpe/symbols.h"

namespace bpe {

constexpr size_t READABLE_BYTES = 32;  // from each piece's first byte on, even if the text ends before

class Window {
   public:
    explicit Window(const Pattern& pattern, const uint8_t* classes) : pattern_(pattern), classes_(classes) {}

    // Finds where pieces begin in the first WINDOW_BYTES of a text that begins with a piece. Returns the number of
    // starts; the last one is the end of the last whole piece. Reads 64 * Bits::WORDS bytes of `bytes`, which begins as
    // the text does.
    size_t find_starts(std::string_view text, const char* bytes) {
        size_ = std::min(text.size(), WINDOW_BYTES + LOOKAHEAD_BYTES);
        whole_ = size_ == text.size();
        text_ = text;
        certain_ = whole_ ? size_ : WINDOW_BYTES;
        classify(bytes);
        if (pattern_.cl100k)
            mark_cl100k();
        else
            mark_gpt2();
        move_starts_of_wide_spaces();
        mark_contractions();
        return list_starts();
    }

    const uint32_t* starts() const { return list_; }

   private:
    void classify(const char* bytes) {
        used_ = (size_ + 63) / 64;
        wide_spaces_ = 0;
        Bits not_ascii;
        uint64_t any = 0;
        for (size_t word = 0; word < used_; ++word) {
            const Block block(bytes + 64 * word);
            blank_[word] = block.equal(' ');
            newline_[word] = block.equal('\n') | block.equal('\r');
            space_[word] = blank_[word] | block.within('\t', '\r');
            letter_[word] = block.within('a', 'z', 0x20);
            number_[word] = block.within('0', '9');
            apostrophe_[word] = block.equal('\'');
            continuation_[word] = 0;
            any |= not_ascii[word] = block.not_ascii();
        }
        continuation_[used_] = 0;
        // Beyond the text counts as white space, because white space at the end of a text is one piece.
        const uint64_t inside = size_ % 64 ? ~uint64_t{0} >> (64 - size_ % 64) : ~uint64_t{0};
        if (any) classify_wide(not_ascii);
        for (Bits* bits : {&letter_, &number_, &blank_, &newline_, &apostrophe_, &continuation_}) {
            (*bits)[used_ - 1] &= inside;
            (*bits)[used_] = 0;
        }
        space_[used_ - 1] |= ~inside;
        space_[used_] = ~uint64_t{0};
        for (size_t word = 0; word < used_; ++word) other_[word] = ~(letter_[word] | number_[word] | space_[word]);
        other_[used_] = 0;
    }

    void classify_wide(Bits& not_ascii) {
        size_t done = 0;
        for (size_t word = 0; word < used_; ++word)
            not_ascii.for_each(word, [&](size_t at) {
                if (at < done || at >= size_) return;
                const Symbol symbol = symbol_at(text_, at, classes_);
                done = at + symbol.bytes;
                if (done > 64 * used_) return;  // beyond the window, where nothing is certain
                if (symbol.kind == SPACE)
                    wide_space_[wide_spaces_++] = {static_cast<uint32_t>(at), static_cast<uint32_t>(done)};
                Bits* const kind = symbol.kind == LETTER   ? &letter_
                                   : symbol.kind == NUMBER ? &number_
                                   : symbol.kind == SPACE  ? &space_
                                                           : nullptr;
                const uint64_t bytes = (uint64_t{1} << symbol.bytes) - 1;
                if (kind) set_from(*kind, at, bytes);
                set_from(continuation_, at, bytes & ~uint64_t{1});
            });
    }

    static void set_from(Bits& bits, size_t at, uint64_t mask) {
        bits[at / 64] |= mask << (at % 64);
        if (at % 64 > 60) bits[at / 64 + 1] |= mask >> (64 - at % 64);
    }

    // A run of one class begins a piece, unless the blank before it does. White space begins a piece at its start, and
    // another at its last symbol if text follows. Where digits stand alone, each begins a piece, and no blank before it
    // does.
    void mark_gpt2() {
        const bool digits_alone = pattern_.most_digits == 1;
        for (size_t word = 0; word < used_; ++word) {
            const uint64_t letter = letter_[word] & ~letter_.previous(word),
                           number = number_[word] & ~number_.previous(word);
            const uint64_t other = other_[word] & ~other_.previous(word), space = space_[word] & ~space_.previous(word);
            const uint64_t digit = digits_alone ? number_[word] & ~continuation_[word] : 0;
            const uint64_t after = space_.next(word) | (digits_alone ? number_.next(word) : 0);
            start_[word] =
                ((letter | number | other) & ~blank_.previous(word)) | space | (space_[word] & ~after) | digit;
        }
    }

    // As above, with these differences. A run of letters includes one symbol before it that is neither newline nor
    // number, if that symbol begins a piece. A run of others includes a blank before it and the newlines after it. A
    // run of numbers includes nothing else and ends after most_digits. White space ends after its last newline.
    void mark_cl100k() {
        take_newlines_after_others();
        uint64_t opening_before = 0;
        for (size_t word = 0; word < used_; ++word) {
            const uint64_t others = other_[word] & ~other_.previous(word) & ~blank_.previous(word);
            uint64_t opening = others | (opening_before >> 63 & continuation_[word] & 1);  // the first symbol's bytes
            for (int i = 0; i < 3; ++i) opening |= (opening << 1) & continuation_[word];
            const uint64_t taken = opening << 1 | (opening_before >> 63);
            opening_before = opening;
            const uint64_t plain_space = space_.previous(word) & ~newline_.previous(word);
            const uint64_t letters = letter_[word] & ~letter_.previous(word) & ~taken & ~plain_space;
            const uint64_t spaces = rest_[word] & ~rest_.previous(word);
            const uint64_t last = space_[word] & ~newline_[word] & ~space_.next(word);
            start_[word] = others | letters | spaces | last | (number_[word] & ~number_.previous(word));
        }
        for (size_t word = 0; word < used_; ++word) {
            after_newline_[word] = rest_[word] & ~newline_[word] & (rest_.previous(word) & newline_.previous(word));
            first_number_[word] = number_[word] & ~number_.previous(word);
            after_newline_.for_each(word, [&](size_t at) { end_after_last_newline(at); });
            first_number_.for_each(word, [&](size_t at) { divide_numbers(at); });
        }
    }

    void take_newlines_after_others() {
        bool taking = false;
        for (size_t word = 0; word < used_; ++word) {
            uint64_t first = newline_[word] & (other_.previous(word) | (taking ? 1 : 0)), taken = 0;
            for (; first; first &= first - 1) {
                const uint64_t run = first & -first;
                taken |= ((newline_[word] + run) ^ newline_[word]) & newline_[word];
            }
            taking = taken >> 63;
            rest_[word] = space_[word] & ~taken;
        }
        rest_[used_] = ~uint64_t{0};
    }

    // at: white space after a newline. A piece begins there, unless the run has a later newline.
    void end_after_last_newline(size_t at) {
        size_t end = at;
        while (end < size_ && space_.get(end) && !newline_.get(end)) ++end;
        if (end == size_ && !whole_)
            certain_ = std::min(certain_, at);
        else if (end == size_ || !newline_.get(end))
            start_.set(at);
    }

    void divide_numbers(size_t at) {
        for (size_t count = 0; at < size_ && number_.get(at); ++at) {
            if (continuation_.get(at)) continue;
            if (count == pattern_.most_digits) start_.set(at), count = 0;
            ++count;
        }
    }

    // The rules mark the last byte of a white space symbol where they mean its first.
    void move_starts_of_wide_spaces() {
        for (size_t i = 0; i < wide_spaces_; ++i) {
            const auto [first, end] = wide_space_[i];
            for (size_t at = first + 1; at < end; ++at)
                if (start_.get(at)) start_.clear(at), start_.set(first);
        }
    }

    // An apostrophe that begins a piece may begin a contraction. The piece then ends with the contraction.
    void mark_contractions() {
        for (size_t word = 0; word < used_; ++word) {
            Bits& found = apostrophe_;
            found[word] &= start_[word];
            found.for_each(word, [&](size_t at) {
                const size_t bytes = contraction_size(text_, at, pattern_);
                if (bytes == 0 || at + bytes > size_) return;
                start_.clear(at + 1);
                if (at + bytes < size_) start_.set(at + bytes);
            });
        }
    }

    size_t list_starts() {
        size_t count = 0;
        for (size_t word = 0; word < used_; ++word)
            start_.for_each(word, [&](size_t at) { list_[count++] = static_cast<uint32_t>(at); });
        while (count > 0 && list_[count - 1] > certain_) --count;
        if (whole_ && certain_ == size_ && (count == 0 || list_[count - 1] != size_))
            list_[count++] = static_cast<uint32_t>(size_);
        return count;
    }

    Pattern pattern_;
    const uint8_t* classes_;
    std::string_view text_;
    size_t size_ = 0, used_ = 0, certain_ = 0, wide_spaces_ = 0;
    bool whole_ = false;  // the window holds all of the text
    Bits letter_, number_, other_, space_, blank_, newline_, apostrophe_, continuation_;
    Bits rest_, after_newline_, first_number_, start_;
    struct {
        uint32_t first, end;
    } wide_space_[64 * Bits::WORDS / 2 + 1];
    uint32_t list_[64 * Bits::WORDS + 1];
};

// Calls on_pieces(bytes, starts, count) for the pieces of a text, in order: piece i is bytes[starts[i]] up to
// bytes[starts[i + 1]], i < count. READABLE_BYTES may be read from the first byte of each piece on.
template <class OnPieces>
void for_pieces(std::string_view text, Window& window, const Pattern& pattern, const uint8_t* classes,
                OnPieces on_pieces) {
    constexpr size_t READ = 64 * Bits::WORDS;
    char padded[READ + READABLE_BYTES];
    while (!text.empty()) {
        const char* bytes = text.data();
        if (text.size() < READ + READABLE_BYTES) {
            std::memcpy(padded, bytes, text.size());
            std::memset(padded + text.size(), 0, sizeof padded - text.size());
            bytes = padded;
        }
        const size_t starts = window.find_starts(text, bytes);
        if (starts > 1) {
            on_pieces(bytes, window.starts(), starts - 1);
            text.remove_prefix(window.starts()[starts - 1]);
        } else {  // a piece longer than the window
            const size_t end = piece_end(text, 0, classes, pattern);
            if (end > UINT32_MAX) throw std::length_error("a piece of more than 4 GiB");
            const uint32_t whole[2] = {0, static_cast<uint32_t>(end)};
            on_pieces(text.data(), whole, 1);
            text.remove_prefix(end);
        }
    }
}

}  // namespace bpe
