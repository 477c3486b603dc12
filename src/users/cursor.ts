import { crc32 } from 'node:zlib'
import { MAX_ID } from '../db/columns.ts'

const VERSION = 1

/** An opaque place in the list: a version, the last id seen, and a check sum against copying mistakes; 13 bytes, base64url. */
export function encodeCursor(id: number): string {
  const bytes = Buffer.alloc(13)
  bytes.writeUInt8(VERSION)
  bytes.writeBigUInt64BE(BigInt(id), 1)
  bytes.writeUInt32BE(crc32(bytes.subarray(0, 9)), 9)
  return bytes.toString('base64url')
}

/** The id that `encodeCursor` was given; undefined for anything that it did not make. */
export function decodeCursor(cursor: string): number | undefined {
  const bytes = Buffer.from(cursor, 'base64url')
  if (bytes.length !== 13) return undefined
  const id = Number(bytes.readBigUInt64BE(1))
  return id <= MAX_ID && encodeCursor(id) === cursor ? id : undefined
}
