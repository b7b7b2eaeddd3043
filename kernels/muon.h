// Formulas of Muon that every backend must compute alike. Include formulas.h first.
// Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
#pragma once

// Decay of the momentum. The direction is Nesterov's: gradient and momentum averaged once more.
constexpr float MUON_MOMENTUM = 0.95f;

// The quintic a x + b x^3 + c x^5. Five steps of it take every singular value from (0, 1] to about 0.7 to 1.2.
constexpr float NEWTON_SCHULZ_A = 3.4445f, NEWTON_SCHULZ_B = -4.7750f, NEWTON_SCHULZ_C = 2.0315f;
constexpr float NEWTON_SCHULZ_EPSILON = 1e-7f;  // added to a matrix's Frobenius norm before the division by it

// One element: returns the direction, and moves the momentum towards the clipped gradient.
HIPGPT_SCALAR float muon_direction_element(float& momentum, float gradient, float clip_factor) {
    gradient *= clip_factor;
    momentum = MUON_MOMENTUM * momentum + (1.0f - MUON_MOMENTUM) * gradient;
    return MUON_MOMENTUM * momentum + (1.0f - MUON_MOMENTUM) * gradient;
}

// One element of a weight: see muon_update.
HIPGPT_SCALAR float muon_updated(float weight, float direction, float rate, float scale, float weight_decay) {
    return weight - rate * (scale * direction + weight_decay * weight);
}
