// Rows of q4 as words: 8 integers in each, then a bf16 scale for each block of 32, two in each (see QuantizedDtype in gpu/dtype.ts).
const PER_WORD = 8u;
const LEVEL_BITS = 4u;
