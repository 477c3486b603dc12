import { availableParallelism, loadavg } from 'node:os'

/** How many times slower this machine is now, by what else runs on it, than one that nobody else uses. */
export const slowness = () => Math.max(1, (loadavg()[0] ?? 0) / availableParallelism())
