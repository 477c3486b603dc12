import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc')

/** What the memory of this process holds, in bytes, once its garbage is collected. */
export function memoryInUse() {
  collect()
  return process.memoryUsage()
}
