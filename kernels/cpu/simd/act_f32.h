// The dtype of activations in this compilation: f32.
#pragma once
typedef float act;
