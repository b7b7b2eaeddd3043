// Numbers that kernels share with their grids, written once: hipgpt/compute/backends/launch_shapes.py reads them here.
#pragma once

constexpr int WIDTH = 8;      // elements of a vector load: 16 bytes of bf16, 32 bytes of f32
constexpr int THREADS = 256;  // of a block, in kernels that name no other number

// layernorm.hip: channels that a block of add_partials sums.
constexpr int NORM_COLUMNS = 8;

// matmul_rows.hip: the most rows of x; how many outputs of one row are enough for waves that compute several, and how many
// they compute.
constexpr int MOST_ROWS = 8;
constexpr int MANY_OUTPUTS = 16384;
constexpr int COLUMNS_OF_MANY = 4;

// embedding.hip: a thread per channel; token ids that a block of embedding_backward owns.
constexpr int EMBEDDING_THREADS = 128;
constexpr int EMBEDDING_IDS = 32;

// elementwise.hip: elements per thread of dropout, the numbers that one Philox call returns.
constexpr int PHILOX_NUMBERS = 4;

// matmul.hip: a block computes a square tile of C, the largest whose side gives at least MATMUL_BLOCKS blocks. Sides
// are halved from LARGEST_TILE to SMALLEST_TILE.
constexpr int LARGEST_TILE = 128;
constexpr int SMALLEST_TILE = 16;
constexpr int MATMUL_BLOCKS = 128;

// attention.hip: query rows of a tile, for heads of at most NARROW_CHANNELS, WIDE_CHANNELS and WIDEST_CHANNELS.
constexpr int NARROW_CHANNELS = 64;
constexpr int NARROW_TILE = 32;
constexpr int WIDE_CHANNELS = 128;
constexpr int WIDE_TILE = 16;
constexpr int WIDEST_CHANNELS = 256;
constexpr int WIDEST_TILE = 8;
constexpr int DECODE_THREADS = 256;  // of a block of attention_decode

// decode_blocks.hip: the widest model; vectors of a layer's weights that a thread has registers for.
constexpr int MOST_DECODE_CHANNELS = 1024;
constexpr int MOST_DECODE_HIDDEN = 4096;
constexpr int DECODE_HELD = 8;
constexpr int DECODE_BLOCKS_THREADS = 512;

// decode_tokens.hip: blocks of a cluster, which has a sequence; threads of a block.
constexpr int DECODE_TOKENS_CLUSTER = 16;
constexpr int DECODE_TOKENS_THREADS = 256;

// token_layers.hip: tokens and threads of a block, blocks of a cluster, dynamic shared memory, and the models that it
// serves: narrow or wide, with the widest hidden layer whose biases fit in.
constexpr int TOKEN_LAYERS_ROWS = 64;
constexpr int TOKEN_LAYERS_NARROW = 128;
constexpr int TOKEN_LAYERS_WIDE = 256;
constexpr int TOKEN_LAYERS_THREADS = 384;
constexpr int TOKEN_LAYERS_CLUSTER = 2;
constexpr int TOKEN_LAYERS_MOST_HIDDEN = 2048;
constexpr int TOKEN_LAYERS_SHARED_BYTES = 222208;

// output_layer_loss.hip and output_layer_weight.hip: rows of a tile, threads of a block, dynamic shared memory.
constexpr int OUTPUT_LAYER_TILE = 128;
constexpr int OUTPUT_LAYER_THREADS = 384;
constexpr int OUTPUT_LAYER_SHARED_BYTES = 205824;

// cross_entropy_large.hip and cross_entropy_tma.hip: threads of a row.
constexpr int ROW_THREADS = 1024;
constexpr int TMA_ROW_THREADS = 512;

// sampling.hip
constexpr int SAMPLING_THREADS = 1024;

// muon.hip: sides of a tile of weights, and of a tile of a product.
constexpr int MUON_TILE = 32;
constexpr int MUON_GEMM_TILE = 64;

// matmul_mma.hip, attention_mma.hip and AMD's attention: waves of a block; rows and columns of the squares that an mma
// multiplies.
constexpr int MMA_WAVES = 4;
constexpr int MMA_TILE = 16;

// attention_short.hip: the longest sequence, the widest heads, most threads of a block.
constexpr int SHORT_ROWS = 256;
constexpr int SHORT_CHANNELS = 64;
constexpr int SHORT_THREADS = 256;

// matmul_mma.hip: sides of a block tile, halved from the largest to the smallest; one compilation serves one side.
constexpr int LARGEST_BLOCK_TILE = 128;
constexpr int SMALLEST_BLOCK_TILE = 32;
constexpr int WGMMA_SHARED_BYTES = 98304;  // dynamic shared memory of mainloop_wgmma.h: three stages

// matmul_tma.hip: rows and columns of a block tile, blocks of a cluster, clusters that an H100 or H200 runs at once.
constexpr int TMA_ROWS = 128;
constexpr int TMA_COLUMNS = 256;
constexpr int TMA_CLUSTER = 2;
constexpr int TMA_CLUSTERS = 66;
constexpr int TMA_THREADS = 384;
constexpr int TMA_STAGES = 4;  // of TMA_STAGE_K of K
constexpr int TMA_STAGE_K = 64;
constexpr int TMA_SHARED_BYTES = 229376;  // dynamic: the stages, and boxes of outputs

// attention_tma.hip and attention_backward_tma.hip: rows that a block owns, rows of a key-value tile in forward; heads
// that are computed together so that their keys and values stay in L2, a third of the blocks so that all have the same
// work; bytes of all stages of keys and values in shared memory.
constexpr int TMA_QUERIES = 128;
constexpr int TMA_KEYS = 128;
constexpr int TMA_HEADS = 44;
constexpr int TMA_KEY_VALUE_BYTES = 131072;
constexpr int TMA_BACKWARD_BYTES = 150528;  // dynamic shared memory in backward
