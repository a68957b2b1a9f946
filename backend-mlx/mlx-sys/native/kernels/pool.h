// Threads that share the parts of one job at a time.
#pragma once

namespace duet {

// Does part `part` of a job.
using Part = void (*)(const void* job, int part);

// Does all parts of a job, on the calling thread and those helpers that are awake. Returns when all are done. One caller at a
// time has the helpers; another one meanwhile works alone.
void run_parts(Part part, const void* job, int n_parts);

// How many threads may work on a job from now on, the caller's included.
void set_pool_threads(int n);

}  // namespace duet
