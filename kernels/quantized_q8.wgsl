// Rows of q8 as words: 4 integers in each, then a bf16 scale for each block of 32, two in each (see QuantizedDtype in gpu/dtype.ts).
const PER_WORD = 4u;
const LEVEL_BITS = 8u;
