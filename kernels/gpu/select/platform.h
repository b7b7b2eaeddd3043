// The vendor's functions: NVIDIA's where PLATFORM_CUDA is 1, otherwise AMD's (PLATFORM_HIP).
#pragma once
#ifndef WAVE
#define WAVE 32  // for editors: a build passes the chip's own width, 32 or 64
#endif

#if PLATFORM_CUDA
#include "gpu/platform/cuda.h"
#else
#include "gpu/platform/hip.h"
#endif
