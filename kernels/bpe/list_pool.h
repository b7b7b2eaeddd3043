// Memory for the many lists of words that come and go while merges are trained.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

namespace bpe {

// Lists that were given back are given out again. They are sorted by size, in four steps for each power of two.
class ListPool {
   public:
    uint32_t* take(uint32_t size) {
        const uint32_t step = step_of(size);
        if (step < given_back_.size() && given_back_[step]) {
            uint32_t* const list = given_back_[step];
            std::memcpy(&given_back_[step], list, sizeof(uint32_t*));
            return list;
        }
        const size_t capacity = size_of(step);
        if (capacity > left_) {
            left_ = std::max(CHUNK, capacity);
            chunks_.emplace_back(new uint32_t[left_]);
            next_ = chunks_.back().get();
        }
        next_ += capacity, left_ -= capacity;
        return next_ - capacity;
    }

    void give_back(uint32_t* list, uint32_t size) {
        const uint32_t step = step_of(size);
        if (step >= given_back_.size()) given_back_.resize(step + 1);
        std::memcpy(list, &given_back_[step],
                    sizeof(uint32_t*));  // a linked list: each points to the one given back before it
        given_back_[step] = list;
    }

   private:
    static constexpr size_t CHUNK = 1 << 18;

    // The smallest step of at least `size` entries; step 4 * octave + i has (4 + i) * 2^octave of them.
    static uint32_t step_of(uint32_t size) {
        if (size <= 4) return 0;
        const uint32_t octave = 29 - static_cast<uint32_t>(__builtin_clz(size - 1));
        return 4 * octave + ((size - 1) >> octave) - 3;
    }
    static size_t size_of(uint32_t step) { return (size_t{4} + step % 4) << step / 4; }

    std::vector<uint32_t*> given_back_;  // by step, the last one
    std::vector<std::unique_ptr<uint32_t[]>> chunks_;
    uint32_t* next_ = nullptr;
    size_t left_ = 0;
};

}  // namespace bpe
