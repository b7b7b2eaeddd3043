// The GEMM of matmul_mma.hip and muon_mma.hip, `Gemm`, and GEMM_KERNEL, a kernel of GEMM_THREADS threads: by Hopper's
// wgmma where MAINLOOP_WGMMA is 1, by AMD's matrix unit where GEMM_WAVES says how many waves a block has, otherwise by
// NVIDIA's mma.
#pragma once
#ifndef BLOCK_TILE
#define BLOCK_TILE 128  // rows and columns of C that a block computes: 256, 128, 64 or 32
#endif

#if MAINLOOP_WGMMA
#include "gpu/gemm/mainloop_wgmma.h"
#elif GEMM_WAVES
#include "gpu/gemm/mainloop_amd.h"
#else
#include "gpu/gemm/mainloop_mma.h"
#endif

#ifndef GEMM_KERNEL  // AMD's main loop has its own
#define GEMM_KERNEL KERNEL(GEMM_THREADS)
#endif
