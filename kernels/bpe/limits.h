// Numbers that hipgpt/data/tokenizer needs too, which reads them from this file.
#pragma once

namespace bpe {

constexpr int ID_LIMIT = 16777216;  // ids are below 2^24: an entry of word_cache.h has their number in 8 more bits
constexpr int SPARE_IDS = 4;        // that encoding may overwrite after the last id
constexpr int CLASS_TABLE_SIZE = 262144;  // code points with a class of their own, below U+40000
constexpr int WINDOW_BYTES = 4096;        // in which pretokenizer.h finds pieces at once

}  // namespace bpe
