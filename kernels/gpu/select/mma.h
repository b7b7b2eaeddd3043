// The chip's matrix instruction, `Mma`: AMD's where one of these macros is 1, otherwise NVIDIA's (MMA_SYNC).
#pragma once
#if MMA_MFMA
#include "gpu/mma/mfma.h"
#elif MMA_WMMA_GFX11
#include "gpu/mma/wmma_gfx11.h"
#elif MMA_WMMA_GFX12
#include "gpu/mma/wmma_gfx12.h"
#else
#include "gpu/mma/mma_sync.h"
#endif
