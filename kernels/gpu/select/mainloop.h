// The GEMM of matmul_mma.hip, `Gemm`: by Hopper's wgmma where MAINLOOP_WGMMA is 1, otherwise by the chip's mma.
#pragma once
#ifndef BLOCK_TILE
#define BLOCK_TILE 128  // rows and columns of C that a block computes: 128, 64 or 32
#endif

#if MAINLOOP_WGMMA
#include "gpu/gemm/mainloop_wgmma.h"
#else
#include "gpu/gemm/mainloop_mma.h"
#endif
