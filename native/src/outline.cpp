#include <algorithm>

#include "segmenter.hpp"

namespace sam3i::core {

namespace {

// Some pixels, and where in the picture their corner lies.
struct Grid {
    int32_t x, y, width, height;
    std::vector<uint8_t> cells;

    Grid(int32_t x, int32_t y, int32_t width, int32_t height, uint8_t value)
        : x(x),
          y(y),
          width(width),
          height(height),
          cells(static_cast<size_t>(width) * static_cast<size_t>(height), value) {}
    uint8_t& at(int32_t column, int32_t row) {
        return cells[static_cast<size_t>(row) * static_cast<size_t>(width) + static_cast<size_t>(column)];
    }
    bool has(int32_t column, int32_t row) const {
        return column >= 0 && row >= 0 && column < width && row < height &&
               cells[static_cast<size_t>(row) * static_cast<size_t>(width) + static_cast<size_t>(column)] != 0;
    }
};

struct Cell {
    int32_t column, row;
};

// The regions whose pixels share a side, each cut out, in the order of their first pixels. `grid` is used up.
std::vector<Grid> parts(Grid grid) {
    std::vector<Grid> found;
    std::vector<Cell> cells;
    for (int32_t row = 0; row < grid.height; ++row) {
        for (int32_t column = 0; column < grid.width; ++column) {
            if (!grid.has(column, row)) continue;
            cells.assign(1, {column, row});
            grid.at(column, row) = 0;
            int32_t left = column, right = column, bottom = row;
            for (size_t i = 0; i < cells.size(); ++i) {
                const Cell cell = cells[i];
                left = std::min(left, cell.column), right = std::max(right, cell.column);
                bottom = std::max(bottom, cell.row);
                for (const Cell next : {Cell{cell.column - 1, cell.row}, Cell{cell.column + 1, cell.row},
                                        Cell{cell.column, cell.row - 1}, Cell{cell.column, cell.row + 1}}) {
                    if (!grid.has(next.column, next.row)) continue;
                    grid.at(next.column, next.row) = 0;
                    cells.push_back(next);
                }
            }
            Grid cut(grid.x + left, grid.y + row, right + 1 - left, bottom + 1 - row, 0);
            for (const Cell cell : cells) cut.at(cell.column - left, cell.row - row) = 1;
            found.push_back(std::move(cut));
        }
    }
    return found;
}

// The outer edge of one region: from the top left corner of its first pixel, which comes last, down,
// with the region on the left hand.
void add_ring(const Grid& grid, bool hole, Rings& rings) {
    constexpr int32_t kAcross[] = {0, 1, 0, -1}, kDown[] = {1, 0, -1, 0};  // south, east, north, west
    int32_t x = 0, y = 0, heading = 0;
    while (!grid.has(x, 0)) ++x;
    const int32_t start = x;
    const auto filled = [&](int32_t side) {  // of the two pixels ahead, the one to the left (0) or right (1)
        const int32_t column = x + (heading == 0 ? -side : heading == 1 ? 0 : heading == 2 ? side - 1 : -1);
        const int32_t row = y + (heading == 0 ? 0 : heading == 1 ? side - 1 : heading == 2 ? -1 : -side);
        return grid.has(column, row);
    };
    do {
        do {
            x += kAcross[heading], y += kDown[heading];
        } while (filled(0) && !filled(1));
        rings.points.push_back(static_cast<float>(grid.x + x));
        rings.points.push_back(static_cast<float>(grid.y + y));
        heading = (heading + (filled(1) ? 3 : 1)) % 4;
    } while (x != start || y != 0 || heading != 0);
    rings.hole.push_back(hole ? 1 : 0);
    rings.starts.push_back(static_cast<int32_t>(rings.points.size() / 2));
}

}  // namespace

Rings trace(const std::vector<uint32_t>& counts, int32_t width, int32_t height) {
    Grid mask(0, 0, width, height, 0);
    int64_t at = 0;
    for (size_t i = 0; i < counts.size(); at += counts[i++]) {
        if (i % 2 == 0) continue;
        for (int64_t pixel = at; pixel < at + counts[i]; ++pixel) {
            mask.at(static_cast<int32_t>(pixel / height), static_cast<int32_t>(pixel % height)) = 1;
        }
    }
    Rings rings;
    for (const Grid& part : parts(std::move(mask))) {
        // One row of background all around makes what surrounds the part a single region, the first.
        Grid around(part.x - 1, part.y - 1, part.width + 2, part.height + 2, 1);
        for (int32_t row = 0; row < part.height; ++row) {
            for (int32_t column = 0; column < part.width; ++column) {
                if (part.has(column, row)) around.at(column + 1, row + 1) = 0;
            }
        }
        const std::vector<Grid> regions = parts(around);
        Grid full(around.x, around.y, around.width, around.height, 1);
        for (int32_t row = 0; row < full.height; ++row) {
            for (int32_t column = 0; column < full.width; ++column) {
                if (regions[0].has(column, row)) full.at(column, row) = 0;
            }
        }
        // The ring begins at the region's first row.
        full.y += 1;
        full.height -= 1;
        full.cells.erase(full.cells.begin(), full.cells.begin() + full.width);
        add_ring(full, false, rings);
        for (size_t i = 1; i < regions.size(); ++i) add_ring(regions[i], true, rings);
    }
    return rings;
}

}  // namespace sam3i::core
