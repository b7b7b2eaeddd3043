// Activations in f32.
#pragma once
typedef float act;
