import fc from 'fast-check'
import { expect, test } from 'vitest'
import { MAX_ID } from '../db/columns.ts'
import { decodeCursor, encodeCursor } from './cursor.ts'

test('a cursor gives back the id that it was made of', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: MAX_ID }), (id) => {
      expect(decodeCursor(encodeCursor(id))).toBe(id)
    }),
  )
})

test('nothing else is a cursor', () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      expect(decodeCursor(text)).toBeUndefined()
    }),
  )
})
