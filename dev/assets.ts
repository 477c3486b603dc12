import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { brotliCompressSync, gzipSync } from 'node:zlib'
import { ASSETS } from '../src/http/assets.ts'

/** Puts the files that pages need into `folder`, each as it is and compressed: no request waits for that, nor does a start. */
export function writeAssets(folder: string): void {
  mkdirSync(folder, { recursive: true })
  for (const [name, source] of Object.entries(ASSETS)) {
    const content = readFileSync(fileURLToPath(new URL(`../${source}`, import.meta.url)))
    const file = join(folder, name)
    writeFileSync(file, content)
    writeFileSync(`${file}.br`, brotliCompressSync(content))
    writeFileSync(`${file}.gz`, gzipSync(content, { level: 9 }))
  }
}
